"""How labels are spread over clients."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedray.data.samples import Samples

MOST_CLIENTS = 100_000  # of whom it is written: of more, nobody looks at them one by one


@dataclass(frozen=True)
class Census:
    """How labels are spread: partition.json."""

    labels: list[str]
    counts: list[list[int]]  # a row a client, a column a label
    # Earth mover's distance of each client's mix of labels to the population's, sum_y |p_k(y) - p(y)| (Zhao
    # et al. 2018): 0 as everybody, towards 2 alone with a rare label. None for a client without samples.
    emd: list[float | None]


def census(samples: Samples, client_indices: Mapping[int, np.ndarray]) -> Census:
    counts = label_counts(samples, client_indices)
    return Census(
        list(samples.label_names), counts.tolist(), rounded_or_none(distance(counts, counts.sum(0)), counts)
    )


def label_counts(samples: Samples, client_indices: Mapping[int, np.ndarray]) -> np.ndarray:
    """What each client holds of each label, int [clients, labels]."""
    return np.stack(
        [
            np.bincount(samples.labels[client_indices[client]], minlength=len(samples.label_names))
            for client in range(len(client_indices))
        ]
    )


def distance(counts: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Earth mover's distance of mixes of labels [..., labels] to that of `to`, sum_y |p(y) - q(y)| (Zhao et
    al. 2018)."""
    mix = counts / np.maximum(counts.sum(-1, keepdims=True), 1e-12)
    distances: np.ndarray = np.abs(mix - to / to.sum()).sum(-1)
    return distances


def rounded_or_none(distances: np.ndarray, counts: np.ndarray) -> list[float | None]:
    """Each client's, for a file; None for one that holds nothing."""
    return [round(float(d), 6) if n else None for d, n in zip(distances, counts.sum(1), strict=True)]
