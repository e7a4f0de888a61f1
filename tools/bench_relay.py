"""What the federation costs beside the training: a table with ratios, on whatever machine this is.

    uv run python tools/bench_relay.py

1. A hop of Stable Diffusion 1.5's rank 8 adapter (9.4 MB in fp16) between two client actors, training left
out:
   export from the fp32 masters, through the object store by reference, into the receiver's masters.
2. Training steps a second inside a client actor, against a plain loop over the same networks and latents
here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import numpy as np
import ray
import torch

from fedray import checks
from fedray.data import holdings
from fedray.executors import Job
from fedray.executors.local_training import batches
from fedray.executors.model import Model
from fedray.executors.ray.actors import ClientHost
from fedray.randomness import generator, key
from fedray.transport.buffer import FlatParameters

ADAPTER = 4_718_592  # numbers in Huang et al.'s adapter


class Relay:
    """A client that receives and hands on, without training."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        weights = {"adapter": torch.nn.Parameter(torch.randn(ADAPTER) * 0.01)}
        self.flat = FlatParameters(weights, "fp16", torch.device("cpu"))

    def turn(self, buffer: np.ndarray | None) -> np.ndarray:
        if buffer is not None:
            self.flat.receive(buffer)
        return self.flat.send()


def hops(rounds: int, a_round: int = 5) -> list[float]:
    """Seconds a hop, of each round of five. As the executor does, a round's turns are submitted at once, each
    waiting for its predecessor's buffer; one hop is in flight at a time, and the next round waits for the
    last."""
    actors = [ray.remote(Relay).options(num_cpus=0.5).remote(1) for _ in range(2)]
    value = actors[0].turn.remote(None)
    times = []
    ray.wait([value], fetch_local=False)
    for _ in range(rounds + 5):
        start = time.perf_counter()
        for i in range(a_round):
            value = actors[(i + 1) % 2].turn.remote(value)
        ray.wait([value], fetch_local=False)
        times.append((time.perf_counter() - start) / a_round)
    for actor in actors:
        ray.kill(actor)
    return times[5:]


def plain_loop(job: Job, steps: int) -> float:
    """Steps a second of a loop as anybody would write it: the same networks, adapter, latents and draws, an
    AdamW over the adapter's own tensors. No federation."""
    model = Model(job, torch.device("cpu"))
    learner, scenario = model.learner, job.scenario
    samples, held = holdings(scenario, job.folder)
    shard = learner.encode(samples, [int(i) for i in held[0]])
    parameters = [p for part in learner.parts.values() for p in part.parameters() if p.requires_grad]
    for p in parameters:  # out of the flat buffer, into tensors of their own
        p.data, p.grad = p.data.clone(), None
    optimizer = torch.optim.AdamW(parameters, lr=3e-4)
    draws = torch.Generator().manual_seed(key(0, 1, 0, "noise"))
    order = batches([4] * (steps + 5), len(shard), generator(0, 1, 0, "batches"))
    start = 0.0
    for i, indices in enumerate(order):
        if i == 5:
            start = time.perf_counter()
        loss = learner.loss(learner.draw(shard, indices, draws))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return steps / (time.perf_counter() - start)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=60, help="of five hops")
    p.add_argument("--steps", type=int, default=40, help="of a turn")
    p.add_argument("--repeats", type=int, default=5)
    a = p.parse_args()
    loaded = checks.check(checks.find("quickstart"), [f"training.local_steps={a.steps}"])
    scenario = loaded.scenario
    job = Job(scenario, loaded.folder)
    torch.set_num_threads(scenario.runtime.threads)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    hop = [1000 * t for t in hops(a.rounds)]

    host = ray.remote(ClientHost).options(num_cpus=1).remote(job)
    buffer, _, _ = host.initial.options(num_returns=3).remote()
    ray.get(host.train.options(num_returns=3).remote(0, 0, buffer, {})[1])  # its samples are encoded now
    inside, plain = [], []
    for r in range(a.repeats):  # in turn, so that a machine's moods strike both
        start = time.perf_counter()
        ray.get(host.train.options(num_returns=3).remote(r, 0, buffer, {})[1])
        inside.append(a.steps / (time.perf_counter() - start))
        plain.append(plain_loop(job, a.steps))
    ratios = [i / q for i, q in zip(inside, plain, strict=True)]
    ray.shutdown()

    print(
        f"\n{Path(__file__).name}: torch {torch.__version__}, Ray {ray.__version__}, {os.cpu_count()} cores,"
        " medians\n"
    )
    print(f"{'what':<44}{'median':>10}{'min':>10}{'max':>10}{'aim':>12}")
    print(
        f"{'hop of a 9.4 MB adapter, ms':<44}{statistics.median(hop):>10.2f}{min(hop):>10.2f}{max(hop):>10.2f}{'< 10':>12}"
    )
    for name, values in (
        ("steps a second, in a client actor", inside),
        ("steps a second, plain loop", plain),
    ):
        print(f"{name:<44}{statistics.median(values):>10.2f}{min(values):>10.2f}{max(values):>10.2f}")
    print(
        f"{'ratio, actor to plain':<44}{statistics.median(ratios):>10.3f}{min(ratios):>10.3f}{max(ratios):>10.3f}{'>= 0.95':>12}"
    )


if __name__ == "__main__":
    main()
