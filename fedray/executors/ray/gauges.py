"""A run's metrics among Ray's own: in its dashboard, Prometheus and Grafana."""

from ray.util.metrics import Gauge

from fedray.callbacks import Callback, RoundReport, RunStart


class Gauges(Callback):
    """Each metric as `ray_fedray_loss` and so on, tagged with the name of the run folder."""

    def __init__(self) -> None:
        self.gauges: dict[str, Gauge] = {}

    def on_start(self, start: RunStart) -> None:
        self.run = start.run.name

    def on_round(self, report: RoundReport) -> None:
        for name, value in report.metrics.items():
            if isinstance(value, int | float):
                if name not in self.gauges:
                    self.gauges[name] = Gauge(f"fedray_{name}", tag_keys=("run",))
                self.gauges[name].set(value, tags={"run": self.run})
