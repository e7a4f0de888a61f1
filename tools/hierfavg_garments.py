"""Does HierFAVG's order of edge and cloud aggregations hold on garments?

    python tools/hierfavg_garments.py

As Liu et al. (2020) have it: each client holds one label. A client takes kappa_1 local steps between edge
aggregations, and edge servers kappa_2 of these between aggregations at the cloud, where kappa_1 kappa_2 stays but for
a last row; kappa_2 = 1 is FedAvg at the cloud. edge-IID: each edge server's ten clients have all ten labels; edge-NIID: each has
five of them. The paper's network of 21,840 weights; SGD with batches of 20. Costs are the paper's, too: 1 MHz at a
signal-to-noise ratio of 50 and 0.5 W between a client and its edge server (0.1232 s and 0.0616 J a model), ten times as
long from there to the cloud, 0.024 s and 0.0024 J a local step; what goes down costs nothing. Energy is the clients',
in joules of one.

Smaller than the paper's: 20 clients of 2 edge servers in place of 50 of 5, the shipped 2,000 garments in place of
MNIST, kappa_1 kappa_2 of 30 in place of 60, and fewer steps with a learning rate of 0.05 in place of 0.01. What is
compared is the order, not the seconds.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import nn

import fedray

CLIENTS = 20
EDGES = 2
INTERVAL = 30  # local steps between evaluations; but for the last row between cloud aggregations, too
KAPPAS = ((30, 1), (15, 2), (6, 5), (6, 1))
RATE_BPS = 5.6724e6
STEP_S = 0.024
BATCH = 20


class OneLabel(fedray.Partition):
    """One label a client, in equal parts. edge-IID: client k of an edge server has label k mod 10. edge-NIID: each
    edge server's clients share five labels, two each."""

    def deal(self, samples: Any, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        labels = self.labels(clients)
        parts: list[np.ndarray] = [np.empty(0, int)] * clients
        for label in range(len(samples.label_names)):
            holders = [client for client in range(clients) if labels[client] == label]
            mine = rng.permutation(np.flatnonzero(samples.labels == label))
            for client, part in zip(holders, np.array_split(mine, len(holders)), strict=True):
                parts[client] = np.sort(part)
        return parts

    def labels(self, clients: int) -> list[int]:
        """Of each client."""
        return [client % 10 for client in range(clients)]


class FiveLabelsAnEdge(OneLabel):
    """Of ten clients below an edge server two each have one of its five labels."""

    def labels(self, clients: int) -> list[int]:
        half = clients // EDGES
        return [5 * (client // half) + client % half // 2 for client in range(clients)]


class Cnn(fedray.Learner):
    """Two convolutions of 5 x 5 with 10 and 20 channels, each with a pooling, and dense layers of 50 and 10:
    21,840 weights."""

    counts_alike_on_cpu = True

    def __init__(self, section: Any, context: Any) -> None:
        super().__init__(section, context)
        self.network = nn.Sequential(
            nn.Conv2d(1, 10, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(10, 20, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(320, 50),
            nn.ReLU(),
            nn.Linear(50, 10),
        )
        self.parts = {"network": self.network}

    def logits(self, batch: Any) -> Any:
        return self.network(batch.images / 127.5 - 1)

    def loss(self, batch: Any) -> Any:
        return F.cross_entropy(self.logits(batch), batch.labels)

    def metrics(self, batch: Any) -> dict[str, float]:
        return {"eval_accuracy": float((self.logits(batch).argmax(1) == batch.labels).float().mean())}


def scenario(kind: str, kappas: tuple[int, int], intervals: int, flops: float) -> dict[str, Any]:
    """The scenario of one row.

    Args:
        kind: edge-IID or edge-NIID.
        kappas: local steps between edge aggregations, and how many of these between ones at the cloud.
        intervals: so many times INTERVAL local steps.
        flops: that a client's processor does in a second.
    """
    partition = "OneLabel" if kind == "edge-IID" else "FiveLabelsAnEdge"
    kappa_1, kappa_2 = kappas
    every = INTERVAL // kappa_1
    free = {"kind": "fixed", "rate_bps": 1.0e15, "transmit_w": 0.0}
    client = {"kind": "flops", "peak_flops": flops, "active_w": 0.1}
    return {
        "name": f"hierfavg-{kind.lower()}-{kappa_1}-{kappa_2}",
        "topology": {"kind": "hierarchical", "edges": EDGES, "edge_rounds": kappa_2},
        "population": {"clients": CLIENTS},
        "data": {"kind": "fashion_mnist_mini", "partition": {"kind": f"hierfavg_garments:{partition}"}},
        "model": {"kind": "hierfavg_garments:Cnn"},
        "tuning": {"kind": "full"},
        "training": {
            "rounds": intervals * every,
            "local_steps": kappa_1,
            "batch_size": BATCH,
            "optimizer": {"kind": "sgd", "learning_rate": 0.05},
            "clip_norm": None,
        },
        "network": {
            "uplink": {"kind": "fixed", "rate_bps": RATE_BPS, "transmit_w": 0.5},
            "downlink": free,
            "sidelink": free,
            # ten times as long, up and down together, at nobody's cost
            "backhaul": {"kind": "fixed", "rate_bps": RATE_BPS / 5, "transmit_w": 0.0},
            "device": client,
            "server": {"kind": "flops", "peak_flops": 1.0e18, "active_w": 0.0},
        },
        "evaluation": {"every": every},
        "runtime": {"executor": "serial", "threads": 1, "checkpoint_every": intervals * every},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--intervals", type=int, default=15, help="of 30 local steps each")
    parser.add_argument("--accuracy", type=float, nargs="+", default=[0.35, 0.45, 0.6])
    parser.add_argument("--out", type=Path, default=Path("runs"))
    asked = parser.parse_args()
    os.environ["FEDRAY_CODE"] = str(Path(__file__).resolve().parent)
    once = fedray.plan(fedray.load(scenario("edge-IID", (INTERVAL, 1), 1, 1.0)))
    flops = once["flops_per_sample"] * BATCH / STEP_S
    print(
        "labels    kappa_1 kappa_2 " + "".join(f"{'to ' + format(a, '.0%'):>24}" for a in asked.accuracy),
        end="",
    )
    print(f"{'at the end':>24}")
    for kind in ("edge-IID", "edge-NIID"):
        for kappa_1, kappa_2 in KAPPAS:
            mapping = scenario(kind, (kappa_1, kappa_2), asked.intervals, flops)
            run = fedray.run(fedray.load(mapping), out=asked.out / mapping["name"], progress=False)
            rows = [row for row in run.metrics.to_pylist() if row.get("eval_accuracy") is not None]
            cells = [reached(rows, accuracy) for accuracy in asked.accuracy]
            mean = sum(row["eval_accuracy"] for row in rows[-3:]) / len(rows[-3:])
            last = rows[-1]
            cells.append(f"{mean:.1%}, {last['sim_time_s']:.0f} s, {last['energy_j'] / CLIENTS:.1f} J")
            line = f"{kind:9} {kappa_1:7} {kappa_2:7} "
            print(line + "".join(f"{cell:>24}" for cell in cells), flush=True)


def reached(rows: list[dict[str, Any]], accuracy: float) -> str:
    """The steps, seconds and a client's joules until a test accuracy."""
    for i, row in enumerate(rows, 1):
        if row["eval_accuracy"] >= accuracy:
            steps = i * INTERVAL
            return f"{steps}, {row['sim_time_s']:.0f} s, {row['energy_j'] / CLIENTS:.1f} J"
    return "never"


if __name__ == "__main__":
    main()
