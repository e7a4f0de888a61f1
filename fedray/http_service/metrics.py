"""What a service counts, in Prometheus' text format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
NO_ADAPTER = ""  # of a request that named none that is there


class Metrics:
    """Counters of one process, by adapter."""

    def __init__(self, adapters: list[str]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fedray_serve_requests",
            "Answers to POST /generate, by status",
            ["adapter", "status"],
            registry=self.registry,
        )
        self.images = Counter("fedray_serve_images", "Images made", ["adapter"], registry=self.registry)
        self.seconds = Histogram(
            "fedray_serve_seconds",
            "Seconds from a whole request to its image, with waiting",
            ["adapter"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.sampling = Histogram(
            "fedray_serve_sampling_seconds",
            "Seconds in which a model process made an image",
            ["adapter"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.queue = Gauge("fedray_serve_queue", "Requests that wait or are answered", registry=self.registry)
        for adapter in adapters:  # so that a series is there before its first request
            self.images.labels(adapter)
            self.seconds.labels(adapter)

    def text(self) -> bytes:
        return generate_latest(self.registry)
