"""What parallel rounds cost beside the training: a table with ratios, on whatever machine this is.

    uv run python tools/bench_parallel.py [--rounds 5]

Fashion-MNIST and a CNN of 225,034 parameters, two client actors of one thread, SGD. Each round of the
federation (schedule, clock, training, sum, the lines of the run folder; no evaluation, no checkpoint) is
measured beside the same clients' round in a plain loop in this process with one thread, in turns, so that
both meet the same machine.

(a) 100 clients, Dirichlet(0.1), 10 a round, one epoch, batches of 64.     Ratio to the plain loop: at most 0.60.
(b) 1,000 clients of 20 samples, 500 a round, one step of 20 each.          Ratio to the plain loop: at most 0.60.
(c) 100, 200 and 1,000 clients a round that train nothing.                    Under 0.3 ms a client.
(d) 100,000 clients of 20 samples, 1,000 a round, one step: the memory of all processes against (a)'s 100 clients, and a
    round against one of 1,000 clients of 1,000.                             Under 300 MB more; ratio near 1.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ray
import torch
import torch.nn.functional as F

from fedray.checks import check
from fedray.data import open_source
from fedray.data.clients import Holdings, holdings
from fedray.executors import Job
from fedray.executors.local_training import batches
from fedray.executors.ray.executor import RayExecutor
from fedray.learners.classifier import build
from fedray.network.clock import time_round
from fedray.network.ledger import Ledger
from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from fedray.planning.shared import Shared
from fedray.randomness import generator
from fedray.runs.folder import RunFolder
from fedray.runs.recorder import client_rows, round_metrics

NETWORK = """
network:
  uplink: {{kind: fixed, rate_bps: 20.0e6}}
  downlink: {{kind: fixed, rate_bps: 100.0e6}}
  sidelink: {{kind: fixed, rate_bps: 100.0e6}}
  device: {{kind: flops, peak_flops: 1.0e10, active_w: 5}}
  server: {{kind: flops, peak_flops: 1.0e12, active_w: 100}}
"""
SCENARIO = (
    """
name: bench
topology: {{kind: parallel}}
population: {{clients: {clients}, per_round: {per_round}}}
data: {{kind: fashion_mnist, partition: {partition}}}
model: {{kind: classifier, network: cnn}}
tuning: {{kind: full}}
training: {{rounds: 100, {length}, batch_size: {batch}, optimizer: {{kind: sgd, learning_rate: 0.05}}, clip_norm: null}}
runtime: {{actors: 2}}
"""
    + NETWORK
)
DIRICHLET = {
    "clients": 100,
    "per_round": 10,
    "partition": "{kind: dirichlet, alpha: 0.1}",
    "length": "local_epochs: 1",
    "batch": 64,
}
TWENTY = {
    "clients": 1000,
    "per_round": 500,
    "partition": "{kind: iid, samples: 20}",
    "length": "local_steps: 1",
    "batch": 20,
}


class Federation:
    """A scenario's rounds, as the engine does them; or rounds in which the clients train nothing, which
    `check` refuses."""

    def __init__(self, folder: Path, trains: bool = True, **values: Any) -> None:
        file = folder / "bench.yaml"
        file.write_text(SCENARIO.format(**values))
        self.loaded = check(file)
        self.scenario, self.t, self.ledger = self.loaded.scenario, 0, Ledger()
        if not trains:
            training = self.scenario.training.model_copy(update={"local_steps": 0})
            self.scenario = self.scenario.model_copy(update={"training": training})
        self.run = RunFolder(folder)
        samples, held = holdings(self.scenario, folder)
        assert isinstance(held, Holdings)
        self.samples, self.held = samples, held
        self.executor = RayExecutor(Job(self.scenario, folder))
        self.work = self.executor.workload().of(self.scenario, held.sizes.tolist())
        self.executor.begin(Shared(held.sizes.tolist()))
        self.radio = Radio(self.scenario.network)

    def round(self) -> tuple[float, list[int]]:
        """Seconds, and who trained."""
        self.t += 1
        start = time.perf_counter()
        schedule = schedule_round(self.scenario, self.radio, self.t)
        events = time_round(schedule, self.work, self.radio, self.ledger.sim_time_s)
        n = len(schedule.clients)
        reports = [report.public(n) for report in self.executor.run_round(schedule)]
        self.ledger = self.ledger.add(events)
        metrics = round_metrics(self.t, reports, self.ledger, 0.0, lambda samples: samples)
        by_client = {report.client: report for report in reports}
        self.run.append(events, metrics, client_rows(self.t, schedule.clients, by_client, events))
        return time.perf_counter() - start, schedule.clients

    def memory(self) -> float:
        """MB that this process and the actors hold for themselves."""
        pids = [os.getpid(), *ray.get([h.actor.pid.remote() for h in self.executor.hosts])]
        return sum(_private(pid) for pid in pids)


def plain_round(
    federation: Federation,
    clients: list[int],
    network: torch.nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> float:
    """Seconds of the same clients' FedAvg, as anybody would write it: state dicts, no federation."""
    training, round = federation.scenario.training, federation.t
    start = time.perf_counter()
    before = copy.deepcopy(network.state_dict())
    mean = {name: torch.zeros_like(t) for name, t in before.items()}
    whole = sum(len(federation.held[c]) for c in clients)
    for client in clients:
        network.load_state_dict(before)
        mine = torch.from_numpy(federation.held[client].astype("int64"))
        x, y = images[mine], labels[mine]
        optimizer = torch.optim.SGD(network.parameters(), lr=training.optimizer.learning_rate)
        for indices in batches(
            training.batches(len(mine)), len(mine), generator(0, round, client, "batches")
        ):
            optimizer.zero_grad()
            i = torch.from_numpy(indices)
            loss = F.cross_entropy(network(x[i].float() / 127.5 - 1), y[i])
            loss.backward()
            optimizer.step()
        for name, t in network.state_dict().items():
            mean[name] += t * (len(mine) / whole)
    network.load_state_dict(mean)
    return time.perf_counter() - start


def beside(name: str, rounds: int, target: str, **values: Any) -> float:
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(Path(folder), **values)
        samples = open_source(federation.scenario.data, Path(folder))
        images, labels = (
            torch.from_numpy(samples.pixels(slice(None), None).copy()),
            torch.from_numpy(samples.labels),
        )
        network = build(federation.scenario.model, 1, 28, 10)
        federation.round()
        pairs = []
        for _ in range(rounds):
            ours, clients = federation.round()
            pairs.append((ours, plain_round(federation, clients, network, images, labels)))
        memory = federation.memory()
        federation.executor.close()
    ours, plain = (statistics.median(p[i] for p in pairs) for i in (0, 1))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{name:<48}{plain * 1e3:>10.0f} ms{ours * 1e3:>10.0f} ms{ratio:>8.2f}   {target}", flush=True)
    return memory


def empty(rounds: int, clients: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(
            Path(folder), trains=False, **(TWENTY | {"clients": 2 * clients, "per_round": clients})
        )
        schedule = schedule_round(federation.scenario, federation.radio, 1)
        samples = open_source(federation.scenario.data, Path(folder))
        images, labels = (
            torch.from_numpy(samples.pixels(slice(None), None).copy()),
            torch.from_numpy(samples.labels),
        )
        network = build(federation.scenario.model, 1, 28, 10)
        pairs = []
        for _ in range(rounds + 3):
            start = time.perf_counter()
            list(federation.executor.run_round(schedule))
            ours = time.perf_counter() - start
            pairs.append(
                (ours / clients, plain_round(federation, schedule.clients, network, images, labels) / clients)
            )
        federation.executor.close()
    ours, plain = (statistics.median(p[i] for p in pairs[3:]) * 1e3 for i in (0, 1))
    print(
        f"{f'(c) one of {clients:,} clients that train nothing':<48}{plain:>10.3f} ms{ours:>10.3f}"
        f" ms{ours / plain:>8.2f}   under 0.3 ms"
    )


def many(rounds: int, few_mb: float) -> None:
    medians = []
    for clients in (1000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            federation = Federation(Path(folder), **(TWENTY | {"clients": clients, "per_round": 1000}))
            federation.round()
            medians.append(statistics.median(federation.round()[0] for _ in range(rounds)))
            mb = federation.memory()
            federation.executor.close()
    name = "(d) 1,000 of 1,000 clients, and of 100,000"
    print(
        f"{name:<48}{medians[0] * 1e3:>10.0f} ms{medians[1] * 1e3:>10.0f} ms{medians[1] / medians[0]:>8.2f}  "
        " near 1"
    )
    print(
        f"{'    memory: 100 clients, and 100,000':<48}{few_mb:>10.0f} MB{mb:>10.0f} MB{mb - few_mb:>+8.0f}  "
        " under +300 MB"
    )


def _private(pid: int) -> float:
    """MB of a process that it shares with no other (USS): Ray's object store is shared and counted
    nowhere."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="abcd")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    print(f"{'':<48}{'plain loop':>13}{'fedray':>13}{'ratio':>8}")
    few = beside(
        "(a) a round of 10 of 100 clients, an epoch each", arguments.rounds, "at most 0.60", **DIRICHLET
    )
    if "b" in arguments.only:
        beside("(b) a round of 500 of 1,000 clients, a step each", arguments.rounds, "at most 0.60", **TWENTY)
    if "c" in arguments.only:
        for clients in (100, 200, 1000):
            empty(arguments.rounds, clients)
    if "d" in arguments.only:
        many(arguments.rounds, few)


if __name__ == "__main__":
    main()
