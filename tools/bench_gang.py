"""What training in gangs saves (`runtime.gang`): a table with ratios, on whatever machine this is.

    uv run python tools/bench_gang.py [--steps 4] [--repeats 5] [--threads 1]

tiny-sd with the quickstart's adapters (rank 8, kohya's layers of U-Net and text encoder) on 8 clients of 5 ink
pictures, in this process. The same local updates (draws, steps, clipping, sum) one client after another and in
a gang, in turns, so that both meet the same machine; the median of each, and of their ratios. What each
client has learnt is compared, too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from fedray import checks
from fedray.executors import Job
from fedray.executors.client_worker import ClientWorker

CLIENTS = 8
GANGS = (2, 4, 8)
BATCHES = (4, 1)
SETTINGS = (
    "topology={kind: parallel}",
    f"population={{clients: {CLIENTS}, per_round: {CLIENTS}}}",
    "data.partition={kind: iid}",
)


def worker(gang: int, batch: int, steps: int, threads: int) -> ClientWorker:
    """A client worker in this process, with its clients' samples encoded."""
    settings = [
        *SETTINGS,
        f"training.batch_size={batch}",
        f"training.local_steps={steps}",
        f"runtime={{executor: serial, gang: {gang}, threads: {threads}}}",
    ]
    loaded = checks.check(checks.find("quickstart"), settings)
    made = ClientWorker(Job(loaded.scenario, loaded.folder), torch.device("cpu"))
    for client in range(CLIENTS):
        made.shard(client)
    return made


def timed_round(made: ClientWorker, buffer: np.ndarray, clients: list[int]) -> tuple[float, torch.Tensor]:
    """Seconds of these clients' local updates, and the sum of what they have learnt."""
    weight = sum(len(made.client_indices[client]) for client in clients)
    start = time.process_time()
    total, reports, _ = made.train_all(buffer, {}, weight, 1, clients, [None] * len(clients))
    seconds = time.process_time() - start
    assert all(report.failure is None for report in reports), reports
    return seconds, total.as_numbers().clone()


def measure(gang: int, batch: int, steps: int, repeats: int, threads: int) -> None:
    alone = worker(1, batch, steps, threads)
    together = worker(gang, batch, steps, threads)
    clients = list(range(gang))
    buffer = alone.initial()[0].copy()
    _, expected = timed_round(alone, buffer, clients)
    _, got = timed_round(together, buffer, clients)
    error = float((got.double() - expected.double()).norm() / expected.double().norm())
    seconds = [
        (timed_round(alone, buffer, clients)[0], timed_round(together, buffer, clients)[0])
        for _ in range(repeats)
    ]
    one, all_at_once = (statistics.median(pair[i] for pair in seconds) / (gang * steps) for i in (0, 1))
    ratio = statistics.median(a / b for a, b in seconds)
    name = f"{gang} clients, batches of {batch}"
    print(
        f"{name:<28}{one * 1e3:>16.1f} ms{all_at_once * 1e3:>12.1f} ms{ratio:>10.2f}{error:>14.1e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=4, help="of a local update")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{'a client and step':<28}{'one by one':>19}{'in a gang':>15}{'ratio':>10}{'difference':>14}")
    for batch in BATCHES:
        for gang in GANGS:
            measure(gang, batch, arguments.steps, arguments.repeats, arguments.threads)


if __name__ == "__main__":
    main()
