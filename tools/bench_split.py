"""What splitting costs beside the computing: a table with ratios, on whatever machine this is.

    uv run python tools/bench_split.py

1. Steps a second of one client with one server on this machine, 2 MB of activations a batch each way, against
the same model
   (a ViT of one layer, some 100 ms a step) unsplit in one process, both with one thread.
2. How busy a server is that four clients share, where all computing is 50 ms of sleep. 3. What a batch's
exchange takes: 2 MB up and 2 MB down, nothing computed; against two actors that pass Ray's references.
"""

import argparse
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import numpy as np
import ray
import torch
import torch.nn.functional as F

from fedray.checks import check
from fedray.data import holdings
from fedray.executors import Job
from fedray.executors.local_training import batches
from fedray.executors.ray.executor import RayExecutor
from fedray.executors.ray.server_host import ServerHost, Turns
from fedray.executors.ray.wiring import in_turn
from fedray.executors.split import ask
from fedray.learners.learners import load
from fedray.network.clock import time_round
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.round import schedule_round
from fedray.planning.shared import shared
from fedray.randomness import generator
from fedray.schedule import Schedule
from fedray.steps import Pass
from fedray.topologies.split import splitfed
from fedray.transport.messages import Message

SCENARIO = """
name: bench
topology: {kind: split, cut: embed, may_send: [labels]}
population: {clients: 1}
data: {kind: fashion_mnist_mini, partition: {kind: iid}}
model: {kind: transformer, objective: classification, layers: 1}
tuning: {kind: full}
training: {rounds: 1, local_steps: STEPS, batch_size: 80, clip_norm: null, optimizer: {kind: sgd, learning_rate: 0.05}}
network:
  uplink: {kind: fixed, rate_bps: 1.0e8}
  downlink: {kind: fixed, rate_bps: 1.0e8}
  sidelink: {kind: fixed, rate_bps: 1.0e8}
  device: {kind: flops, peak_flops: 1.0e10, active_w: 5}
  server: {kind: flops, peak_flops: 1.0e10, active_w: 100}
runtime: {actors: 1}
"""
ACTIVATIONS = 2_000_000  # bytes
SLEEP_S = 0.05


class Plain:
    """The same training, as anybody would write it."""

    def __init__(self, executor: RayExecutor) -> None:
        scenario = executor.job.scenario
        samples, held = holdings(scenario, executor.job.folder)
        torch.set_num_threads(1)
        self.training, self.n = scenario.training, len(held[0])
        self.images = torch.from_numpy(samples.pixels(held[0], None).copy())
        self.labels = torch.from_numpy(samples.labels[held[0]])
        self.network: Any = (
            load(scenario, executor.job.folder, torch.device("cpu"), torch.float32)
            .parts["network"]
            .requires_grad_(True)
        )

    def round(self) -> float:
        optimizer = torch.optim.SGD(self.network.parameters(), lr=0.05)
        start = time.perf_counter()
        for indices in batches(self.training.batches(self.n), self.n, generator(0, 1, 0, "batches")):
            i = torch.from_numpy(indices)
            optimizer.zero_grad()
            loss = F.cross_entropy(self.network(self.images[i].float() / 127.5 - 1).logits, self.labels[i])
            loss.backward()
            loss.item()
            optimizer.step()
        return time.perf_counter() - start


def beside(repeat: int, steps: int) -> tuple[float, float, float]:
    """Steps a second, split and plain, and the median of their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.yaml"
        file.write_text(SCENARIO.replace("STEPS", str(steps)))
        scenario = check(file).scenario
        executor = RayExecutor(Job(scenario, Path(folder)))
        known = shared(scenario, *holdings(scenario, Path(folder)))
        work, radio = executor.workload().of(scenario, known.samples), Radio(scenario.network, 1)
        executor.begin(known)
        plain, pairs = Plain(executor), []
        for t in range(1, repeat + 2):
            schedule = schedule_round(scenario, radio, t, known, work)
            schedule = schedule.sorted({e.id: e.t0_s for e in time_round(schedule, work, radio, 0.0)})
            start = time.perf_counter()
            list(executor.run_round(schedule))
            ours = time.perf_counter() - start
            pairs.append((steps / ours, steps / plain.round()))
        executor.close()
    pairs = pairs[1:]  # the first has the imports
    return *(statistics.median(p[i] for p in pairs) for i in (0, 1)), statistics.median(
        a / b for a, b in pairs
    )  # type: ignore[return-value]


class Sleeper:
    """Client or server that sleeps instead of computing, and says when it did."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.spans, self.message = (
            seconds,
            list[tuple[float, float]](),
            Message(np.ones(ACTIVATIONS, np.uint8), ()),
        )

    def begin(self, attempt: int, round_number: int, buffer: Any, state: Any) -> None:
        pass

    def go(self, *arguments: Any) -> Any:
        step = [a for a in arguments if isinstance(a, Pass)][-1]
        arrived = arguments[-1]
        if isinstance(arrived, Message):
            torch.from_numpy(np.array(arrived.data))  # as whoever computes on it
        start = time.perf_counter()
        time.sleep(self.seconds)
        self.spans.append((start, time.perf_counter()))
        return 0.0 if step.stage == "back" else self.message

    def end(self, *arguments: Any) -> tuple[None, list[Any], dict[str, Any]]:
        return None, [], {}

    def pass_on(self, arrived: Any) -> Any:
        """What Ray takes itself."""
        self.spans.append((time.perf_counter(), time.perf_counter()))
        return self.message.data

    def taken(self) -> list[tuple[float, float]]:
        return self.spans


class SleepingServer:
    """fedray's own server actor, with a Sleeper for what it computes."""

    begin, go = ServerHost.begin, ServerHost.go

    def __init__(self, seconds: float) -> None:
        self.turns, self.split = Turns(), Sleeper(seconds)

    def taken(self) -> list[tuple[float, float]]:
        return self.split.taken()


def exchanged(
    clients: int, batches: int, seconds: float
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """When the server and the first client were busy; each is on the machine's own monotonic clock."""
    hosts = [ray.remote(Sleeper).options(num_cpus=0).remote(seconds) for _ in range(clients)]
    server = ray.remote(SleepingServer).options(num_cpus=0, max_concurrency=clients + 2).remote(seconds)
    ray.get([actor.taken.remote() for actor in (*hosts, server)])

    def asking(actor: Any) -> Any:
        return lambda method, *a: (
            getattr(actor, method).options(num_returns=3 if method == "end" else 1).remote(*a)
        )

    asked = ask(
        in_order(clients, batches),
        ray.put(np.zeros(1)),
        {},
        {},
        0,
        lambda k: asking(hosts[k]),
        in_turn(server),
    )
    ray.get(list(asked.reports.values()))
    spans = ray.get([server.taken.remote(), hosts[0].taken.remote()])
    for actor in (*hosts, server):
        ray.kill(actor)
    return spans[0], spans[1]


def exchange(n: int = 60) -> float:
    """Median milliseconds from the end of a client's first pass to the beginning of its last."""
    _, client = exchanged(1, n, 0.0)
    return statistics.median(1000 * (b[0] - a[1]) for a, b in list(pairwise(client))[10:])


def bare(n: int = 60) -> float:
    """The same of two actors that hand each other's arrays on."""
    here, there = (ray.remote(Sleeper).options(num_cpus=0).remote(0.0) for _ in range(2))
    value = ray.put(None)
    for _ in range(n):
        value = there.pass_on.remote(here.pass_on.remote(value))
    ray.wait([value], fetch_local=False)
    spans = ray.get(here.taken.remote())
    for actor in (here, there):
        ray.kill(actor)
    return statistics.median(1000 * (b[0] - a[1]) for a, b in list(pairwise(spans))[10:])


def in_order(clients: int, batches: int) -> Schedule:
    """A round on the clock in which everything takes as long as it sleeps."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.yaml"
        file.write_text(SCENARIO.replace("STEPS", "1").replace("1.0e10", "1.0"))
        radio = Radio(check(file).scenario.network, clients)
    work = Work(
        lambda *_: 0.0,
        lambda *_: 0,
        lambda _: 0.0,
        pass_flops=lambda *_: SLEEP_S,
        crossing_bytes=lambda *_: 0,
    )
    schedule = splitfed(1, {k: [1] * batches for k in range(clients)}, u_shape=False)
    return schedule.sorted({e.id: e.t0_s for e in time_round(schedule, work, radio, 0.0)})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    print(f"{'':54} {'ours':>12} {'beside':>12} {'ratio':>7} {'target':>8}")
    ours, plain, ratio = beside(asked.repeat, asked.steps)
    print(
        f"{'steps a second, one client and a server / unsplit':54} {ours:12.2f} {plain:12.2f} {ratio:7.2f}"
        f" {'>= 0.85':>8}"
    )
    server, _ = exchanged(4, 10, SLEEP_S)
    busy, whole = sum(b - a for a, b in server), server[-1][1] - server[0][0]
    print(
        f"{'seconds a shared server is busy / of all, 4 clients':54} {busy:12.2f} {whole:12.2f}"
        f" {busy / whole:7.2f} {'>= 0.90':>8}"
    )
    both = [(exchange(), bare()) for _ in range(asked.repeat)]
    ours, plain = (statistics.median(times) for times in zip(*both, strict=True))
    ratio = statistics.median(a / b for a, b in both)
    print(
        f"{'ms of an exchange, 2 MB up and 2 MB down / bare Ray':54} {ours:12.2f} {plain:12.2f} {ratio:7.2f}"
        f" {'< 8 ms':>8}"
    )
    ray.shutdown()


if __name__ == "__main__":
    main()
