"""What the clock costs: an asynchronous run of 10,000 server steps, and a round of 1,000 of a million registered
clients, each beside a plain loop over the same arrivals in the same process.

    uv run python tools/bench_clock.py [--steps 10000] [--clients 1000000]
"""

import argparse
import heapq
import resource
import time

import numpy as np

from fedray.network.asynchronous import Timeline
from fedray.network.clock import time_round
from fedray.network.ledger import Ledger
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.rounds import random_client
from fedray.scenario.device import FlopsDevice
from fedray.scenario.links import FixedLink
from fedray.scenario.mode import FedBuff
from fedray.scenario.network import Network
from fedray.topologies.parallel import parallel

LINK = FixedLink(kind="fixed", rate_bps=2e7, latency_s=0.01)
DEVICE = FlopsDevice(kind="flops", peak_flops=1e9, active_w=5)
NETWORK = Network(uplink=LINK, downlink=LINK, sidelink=LINK, device=DEVICE, server=DEVICE)
CONCURRENCY = 10
BUFFER = 5


def asynchronous(seconds: np.ndarray, steps: int) -> float:
    """Seconds of wall-clock time that so many server steps take."""
    radio = Radio(NETWORK, len(seconds), 0)
    work = Work(lambda c, _: 1e9 * seconds[c], lambda *_: 1_000_000, lambda n: 1e6 * n)
    mode = FedBuff(kind="fedbuff", concurrency=CONCURRENCY, buffer=BUFFER)
    begun = time.perf_counter()
    timeline = Timeline(mode, work, radio, random_client(0, radio, np.arange(len(seconds))), 0.0, False)
    for _ in range(steps):
        timeline.next_step()
    return time.perf_counter() - begun


def plain_asynchronous(seconds: np.ndarray, steps: int) -> float:
    """The same number of arrivals by a heap alone: no links, no energy, nobody at most once a step."""
    begun = time.perf_counter()
    rng = np.random.default_rng(0)
    heap = [(seconds[k], int(k)) for k in rng.choice(len(seconds), CONCURRENCY, replace=False)]
    heapq.heapify(heap)
    for _ in range(steps * BUFFER):
        now_s, _ = heapq.heappop(heap)
        client = int(rng.integers(len(seconds)))
        heapq.heappush(heap, (now_s + seconds[client], client))
    return time.perf_counter() - begun


def registered(clients: int, per_round: int) -> tuple[float, float]:
    """Seconds of wall-clock time of a round of some of so many clients, and of a plain loop over them."""
    radio = Radio(NETWORK, clients, 0)
    work = Work(lambda c, _: 1e9 * (1 + c % 7), lambda *_: 1_000_000, lambda n: 1e6 * n)
    begun = time.perf_counter()
    chosen = np.sort(np.random.default_rng(0).choice(clients, per_round, replace=False)).tolist()
    events = time_round(parallel(1, chosen, False), work, radio, 0.0)
    Ledger().add(events)
    ours = time.perf_counter() - begun
    begun = time.perf_counter()
    longest = 0.0
    joules = 0.0
    for client in np.sort(np.random.default_rng(0).choice(clients, per_round, replace=False)).tolist():
        one_s = 0.41 + 1 + client % 7 + 0.41
        joules += 5 * (1 + client % 7) + 0.2 * 0.4
        longest = max(longest, one_s)
    return ours, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=1_000_000)
    options = parser.parse_args()
    seconds = np.random.default_rng(0).lognormal(size=40)
    ours = asynchronous(seconds, options.steps)
    plain = plain_asynchronous(seconds, options.steps)
    arrivals = options.steps * BUFFER
    print(f"asynchronous, {options.steps:,} server steps, {arrivals:,} updates: {ours:.2f} s,")
    print(
        f"  {1e6 * ours / arrivals:.0f} us an update; a plain heap of arrivals {plain:.2f} s: {ours / plain:.1f} times"
    )
    ours, plain = registered(options.clients, 1000)
    print(f"a round of 1,000 of {options.clients:,} clients: {1e3 * ours:.1f} ms;")
    print(f"  a plain loop {1e3 * plain:.1f} ms: {ours / plain:.1f} times")
    print(f"memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
