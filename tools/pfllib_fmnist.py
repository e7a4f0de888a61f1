"""PFLlib's rows of Fashion-MNIST in pathological label skew, run here and printed beside the published ones.

    apt install dataset-fashion-mnist
    python tools/pfllib_fmnist.py /usr/share/datasets/fashion-mnist --rounds 100

As PFLlib (Zhang et al. 2023) has it: all 70,000 garments are pooled and dealt to 20 clients of two labels each, in
uneven parts; a quarter of each client's own is held out to test on; a 4-layer CNN; SGD with batches of 10 and
learning rate 0.005; one local epoch; every client in every round; 2,000 rounds, of which the best one counts, in
the mean over all test samples. The weight of Ditto's proximal term is not published: `--mu`. Fewer rounds come
near only where they have converged; the tool says after how many its numbers are.
"""

import argparse
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import nn

import fedray
from fedray.data.fashion_mnist import INFO, garments
from fedray.data.samples import Array
from fedray.scenario.data_section import DataSection

CLIENTS = 20
PUBLISHED = {"fedavg": 80.41, "ditto": 99.44}  # percent
GROUP = 4  # clients that share two labels
FILES = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


class Pooled(fedray.Source):
    """Training and test set of Fashion-MNIST in one."""

    class Section(DataSection):
        path: fedray.FilePath
        has_test_set: ClassVar[bool] = False

    def open(self, split: Any) -> Array:
        parts = [garments(self.folder / self.section.path, part) for part in ("train", "test")]

        def load() -> np.ndarray:
            return np.concatenate([part.load() for part in parts])

        return Array(load, np.concatenate([part.labels for part in parts]), INFO.label_names)

    @property
    def info(self) -> fedray.DatasetInfo:
        return INFO


class Pathological(fedray.Partition):
    """Two labels a client: each group of four clients shares two, in parts drawn uniformly from a tenth of an
    even part to an even one; the group's last client has what is left."""

    def deal(self, samples: Any, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        parts: list[list[np.ndarray]] = [[] for _ in range(clients)]
        for label in range(len(samples.label_names)):
            indices = np.flatnonzero(samples.labels == label)
            first = label // 2 * GROUP
            even = len(indices) // GROUP
            ends = np.cumsum(rng.integers(even // 10, even, GROUP - 1))
            for client, part in enumerate(np.split(indices, ends), first):
                parts[client].append(part)
        return [np.sort(np.concatenate(part)) for part in parts]


class Cnn(fedray.Learner):
    """Two convolutions of 5 x 5 with 32 and 64 channels, each with a pooling, and two dense layers of 512 and
    10: 582,026 weights."""

    counts_alike_on_cpu = True

    def __init__(self, section: Any, context: Any) -> None:
        super().__init__(section, context)
        self.network = nn.Sequential(
            nn.Conv2d(1, 32, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(1024, 512),
            nn.ReLU(),
            nn.Linear(512, 10),
        )
        self.parts = {"network": self.network}

    def logits(self, batch: Any) -> Any:
        return self.network(batch.images / 127.5 - 1)

    def loss(self, batch: Any) -> Any:
        return F.cross_entropy(self.logits(batch), batch.labels)

    def metrics(self, batch: Any) -> dict[str, float]:
        return {"eval_accuracy": float((self.logits(batch).argmax(1) == batch.labels).float().mean())}


def scenario(folder: Path, method: str, rounds: int, every: int, mu: float) -> dict[str, Any]:
    """The scenario of one row.

    Args:
        folder: of Fashion-MNIST's files.
        method: fedavg or ditto.
        rounds: in all.
        every: of how many rounds one is evaluated.
        mu: the weight of Ditto's proximal term.
    """
    link = {"kind": "fixed", "rate_bps": 1.0e8}
    return {
        "name": f"pfllib-{method}",
        "topology": {"kind": "parallel"},
        "population": {"clients": CLIENTS},
        "data": {
            "kind": "pfllib_fmnist:Pooled",
            "path": str(folder.resolve()),
            "partition": {"kind": "pfllib_fmnist:Pathological"},
        },
        "model": {"kind": "pfllib_fmnist:Cnn"},
        "tuning": {"kind": "full"},
        "training": {
            "rounds": rounds,
            "local_epochs": 1,
            "batch_size": 10,
            "optimizer": {"kind": "sgd", "learning_rate": 0.005},
            "clip_norm": None,
        },
        **({"personal": {"kind": "ditto", "mu": mu}} if method == "ditto" else {}),
        "network": {
            **dict.fromkeys(("uplink", "downlink", "sidelink"), link),
            "device": {"kind": "profile", "name": "jetson_orin_nano"},
            "server": {"kind": "profile", "name": "rtx_4090"},
        },
        "evaluation": {"every": every, "clients": {"share": 0.25}},
        "runtime": {"checkpoint_every": rounds, "actors": os.cpu_count() or 1, "threads": 1},
    }


def missing(folder: Path) -> list[str]:
    """Files of the whole set that a folder does not have, packed or not."""
    return [name for name in FILES if not any((folder / n).is_file() for n in (name, name[:-3]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the four files of Fashion-MNIST are")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--every", type=int, default=10, help="of how many rounds one is evaluated")
    parser.add_argument("--mu", type=float, default=0.1, help="the weight of Ditto's proximal term")
    parser.add_argument("--methods", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED))
    parser.add_argument("--out", type=Path, default=Path("runs"))
    asked = parser.parse_args()
    if gone := missing(asked.folder):
        parser.error(
            f"{asked.folder} lacks {', '.join(gone)}, expected all of Fashion-MNIST"
            " (apt install dataset-fashion-mnist, or https://github.com/zalandoresearch/fashion-mnist)"
        )
    os.environ["FEDRAY_CODE"] = str(Path(__file__).resolve().parent)
    print(f"{'':8} {'best':>7} {'after':>6} {'std':>6} {'worst tenth':>12} {'PFLlib':>7}")
    for method in asked.methods:
        mapping = scenario(asked.folder, method, asked.rounds, asked.every, asked.mu)
        run = fedray.run(fedray.load(mapping), out=asked.out / mapping["name"], progress=False)
        rows = [r for r in run.metrics.to_pylist() if r.get("eval_clients_accuracy") is not None]
        best = max(rows, key=lambda row: row["eval_clients_accuracy_pooled"])
        shares = [100 * best[f"eval_clients_accuracy{ending}"] for ending in ("_pooled", "_std", "_worst")]
        print(
            f"{method:8} {shares[0]:7.2f} {best['round']:6} {shares[1]:6.2f} {shares[2]:12.2f}"
            f" {PUBLISHED[method]:7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
