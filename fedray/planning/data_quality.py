"""Weights of clients by the quality of their data: how far their labels are from the population's, and how
well they are learnt (GenFL, Qiang et al. 2024, Sec. II-B1 and V-2)."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fedray.data.census import distance

SCALE = 1000  # weights are integers, so that sums of weighted updates are exact


def relative_errors(losses: Mapping[int, float]) -> dict[int, float]:
    """Each client's local learning error (the mean loss of its local update) as a multiple of the mean over a
    round's clients; 1 where all are 0.

    Args:
        losses: by client, of those whose loss is finite.
    """
    if not losses:
        return {}
    mean = math.fsum(losses.values()) / len(losses)
    return {client: loss / mean if mean > 0 else 1.0 for client, loss in losses.items()}


def errors_of_rounds(rows: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """Each client's relative error in the last round in which it trained, of the rows of clients.jsonl."""
    rounds: dict[int, dict[int, float]] = {}
    for row in rows:
        losses = rounds.setdefault(row["round"], {})
        if row["loss"] is not None:
            losses[row["client"]] = row["loss"]
    result: dict[int, float] = {}
    for number in sorted(rounds):
        result |= relative_errors(rounds[number])
    return result


def quality_weight(samples: int, emd: float, relative_error: float) -> int:
    """round(1000 n (1 - EMD / 2) q): q is 1 for a client that learns as well as the mean or better, and the
    mean error over its own for one that learns worse.

    Args:
        samples: n, that the client holds.
        emd: earth mover's distance of its mix of labels to the population's, 0 to 2.
        relative_error: its local learning error over the mean of its round.
    """
    q = min(1.0, 1 / relative_error) if relative_error > 0 else 1.0
    return round(SCALE * samples * (1 - emd / 2) * q)


def quality_weights(
    clients: Iterable[int], samples: Mapping[int, int], counts: np.ndarray, errors: Mapping[int, float]
) -> dict[int, int]:
    """Weights of a round's clients, known before it.

    Args:
        clients: of the round.
        samples: by client.
        counts: of each label, as clients report them [clients, labels].
        errors: relative ones, by client; one that has not trained yet counts as the mean.
    """
    emd = distance(counts, counts.sum(0))
    return {c: quality_weight(samples[c], float(emd[c]), errors.get(c, 1.0)) for c in clients}
