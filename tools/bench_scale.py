"""A million registered clients of which 1,000 train in a round, and many rounds of hardly any work: memory of all
processes together, seconds a round, and what is left of Ray's actors.

    uv run python tools/bench_scale.py million [--clients 1000000] [--per-round 1000] [--rounds 3] [--ray]
    uv run python tools/bench_scale.py soak [--rounds 10000]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from ruamel.yaml import YAML

MODULE = '''
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import fedray


class Points(fedray.Samples):
    """As many labelled points in the plane as there are clients."""

    has_images = False
    captions_follow = True

    def __init__(self, n):
        rng = np.random.default_rng(0)
        self.points = rng.standard_normal((n, 2), dtype=np.float32)
        self.labels = (self.points.sum(1) > 0).astype(np.int64)
        self.label_names = ["below", "above"]

    def contents(self):
        yield self.points.tobytes()


class PointsSource(fedray.Source):
    class Section(fedray.Source.Section):
        samples: int

    def open(self, split):
        return Points(self.section.samples if split == "train" else 1000)

    @property
    def info(self):
        return fedray.DatasetInfo(channels=0, size=None, label_names=["below", "above"])


class Line(fedray.Learner):
    def __init__(self, section, context):
        super().__init__(section, context)
        self.linear = nn.Linear(2, 2)
        self.parts = {"linear": self.linear}

    def encode(self, samples, indices):
        class_of = torch.from_numpy(samples.labels[indices])
        return torch.cat([torch.from_numpy(samples.points[indices]), class_of[:, None]], 1)

    def blank_shard(self, n):
        return torch.zeros(n, 3, device=self.device)

    def loss(self, batch):
        return F.cross_entropy(self.linear(batch[:, :2]), batch[:, 2].long())
'''


def scenario(clients: int, per_round: int, rounds: int, executor: str) -> dict:
    return {
        "name": "scale",
        "topology": {"kind": "parallel"},
        "population": {"clients": clients, "per_round": per_round},
        "data": {"kind": "points:PointsSource", "samples": clients, "partition": {"kind": "iid"}},
        "model": {"kind": "points:Line"},
        "tuning": {"kind": "full"},
        "training": {
            "rounds": rounds,
            "local_steps": 1,
            "batch_size": 1,
            "optimizer": {"kind": "sgd", "learning_rate": 0.1},
        },
        "aggregation": {"kind": "fedavg"},
        "network": {
            **{way: {"kind": "fixed", "rate_bps": 2.0e7} for way in ("uplink", "downlink", "sidelink")},
            **{at: {"kind": "flops", "peak_flops": 1.0e12, "active_w": 5} for at in ("device", "server")},
        },
        "evaluation": {"every": rounds},
        "runtime": {"executor": executor, "threads": 1, "checkpoint_every": max(1, rounds // 4)},
    }


def memory_mib(process: psutil.Process) -> tuple[float, int]:
    """Of a process and all below it, with shared pages divided among those who share them; and how many they
    are."""
    total = 0
    number = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_full_info().pss
            number += 1
        except psutil.Error:
            continue
    return total / 2**20, number


def watched(folder: Path, described: dict) -> list[tuple[int, float, int]]:
    """Runs a scenario; the rounds done, memory and processes at each look, and prints its end."""
    (folder / "points.py").write_text(MODULE)
    file = folder / "scale.yaml"
    with file.open("w") as stream:
        YAML().dump(described, stream)
    begun = time.perf_counter()
    command = [sys.executable, "-m", "fedray", "run", str(file), "--out", str(folder / "run"), "--json"]
    with (folder / "out.json").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
    seen = []
    metrics = folder / "run" / "metrics.jsonl"
    while process.poll() is None:
        done = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        try:
            seen.append((done, *memory_mib(psutil.Process(process.pid))))
        except psutil.Error:
            break
        time.sleep(0.5)
    process.wait()
    result = json.loads((folder / "out.json").read_text() or "{}")
    print(
        f"{result.get('status', 'failed')}, {time.perf_counter() - begun:.0f} s, sha {result.get('weights_sha256', '')[:12]}"
    )
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["million", "soak"])
    parser.add_argument("--clients", type=int, default=1_000_000)
    parser.add_argument("--per-round", type=int, default=1000)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        if options.what == "million":
            rounds = options.rounds or 3
            executor = "ray" if options.ray else "serial"
            seen = watched(Path(name), scenario(options.clients, options.per_round, rounds, executor))
            wall = [json.loads(line)["wall_time_s"] for line in (Path(name) / "run" / "metrics.jsonl").open()]
            each = (wall[-1] - wall[0]) / (len(wall) - 1)
            print(
                f"{options.clients:,} clients, {options.per_round:,} a round, {executor}: {each:.2f} s a round"
            )
        else:
            seen = watched(Path(name), scenario(4, 2, options.rounds or 10_000, "ray"))
            for part in range(1, 9):
                at = seen[min(len(seen) - 1, part * len(seen) // 8)]
                print(f"after {at[0]:6,} rounds: {at[1]:6.0f} MiB in {at[2]} processes")
    print(f"at most {max(memory for _, memory, _ in seen):.0f} MiB in {max(n for *_, n in seen)} processes")


if __name__ == "__main__":
    main()
