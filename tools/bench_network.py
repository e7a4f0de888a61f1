"""What costing a round takes, by how many clients it has, beside a plain loop that adds up one client after
another.

uv run python tools/bench_network.py
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

from fedray.network.clock import time_round, without_garbage_collection
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.scenario.network import Network
from fedray.topologies.parallel import parallel

WORK = Work(lambda client, pictures: 1e9, lambda direction, client: 1_000_000, lambda updates: 1e6 * updates)
RADIO = {"bandwidth_hz": 100e6, "frequency_hz": 3.5e9, "transmit_dbm": 30.0}
FIXED = {"kind": "fixed", "rate_bps": 20e6}


def network(link: dict) -> Network:
    return Network.model_validate({
        "uplink": link, "downlink": link, "sidelink": FIXED,
        "device": {"kind": "flops", "peak_flops": 1e12, "active_w": 10.0},
        "server": {"kind": "flops", "peak_flops": 1e13, "active_w": 100.0},
        "cell": {"placement": {"kind": "disc", "radius_m": 200.0}, "mobility": {"kind": "random_waypoint"}},
    })  # fmt: skip


def plain_loop(clients: int) -> float:
    """The same round's length and energy for one rate, by hand."""
    length, energy = 0.0, 0.0
    for k in range(clients):
        down, up = (8 * WORK.send_bytes(direction, k) / 20e6 for direction in ("downlink", "uplink"))
        compute = WORK.train_flops(k, 0) / 1e12
        length = max(length, down + compute + up)
        energy += 0.2 * (down + up) + 10 * compute
    return math.fsum([length, energy])


def best_s(action, repeats: int) -> float:
    times = []
    for i in range(repeats):
        start = time.perf_counter()
        action(i)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    links = {
        "fixed": FIXED,
        "log_distance": RADIO | {"kind": "log_distance"},
        "3gpp (Sionna)": RADIO | {"kind": "3gpp", "model": "umi"},
    }
    print(
        f"{'channel':16}{'clients':>9}{'ms a round':>12}{'us a client':>13}{'plain loop ms':>15}{'ratio':>8}"
    )
    for name, link in links.items():
        for n in arguments.clients:
            if n > 10_000 and "Sionna" in name:
                continue
            radio = Radio(network(link), n, 0, Path())
            time_round(parallel(1, range(2), False), WORK, radio, 0.0)  # imports

            @without_garbage_collection()  # as schedule_round has it
            def costed(i: int, n: int = n, radio: Radio = radio) -> None:
                time_round(parallel(1, range(n), False), WORK, radio, float(i + 1))

            took = best_s(costed, arguments.repeats)
            plain = best_s(lambda i, n=n: plain_loop(n), arguments.repeats)
            print(
                f"{name:16}{n:>9,}{took * 1e3:>12.1f}{took / n * 1e6:>13.1f}{plain * 1e3:>15.1f}{took / plain:>8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
