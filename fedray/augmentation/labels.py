"""Label sharing and the choice of labels to paint (GenFL, Qiang et al. 2024, Sec. III-A and III-B). Counts,
never samples."""

import numpy as np

from fedray.data.census import distance, rounded_or_none
from fedray.scenario.augmentation import Augmentation


def order(section: Augmentation, counts: np.ndarray) -> np.ndarray:
    """The label of every picture that will be painted, in turn, int [at_most * labels], beside `counts`
    [labels] that are there. Round t has the first `painted(section, labels, t)` of them."""
    names = len(counts)
    if section.labels == "uniform":
        return np.tile(np.arange(names), section.at_most)
    have = counts.astype(int).copy()
    left = np.full(names, section.at_most)
    chosen = np.empty(section.at_most * names, int)
    for i in range(len(chosen)):
        label = int(np.argmin(np.where(left > 0, have, np.iinfo(int).max)))
        have[label] += 1
        left[label] -= 1
        chosen[i] = label
    return chosen


def painted(section: Augmentation, labels: int, rounds: int) -> int:
    """How many pictures there are after so many rounds of painting."""
    return labels * min(section.per_class * rounds, section.at_most)


def distances(
    section: Augmentation, counts: np.ndarray, pictures: np.ndarray, kappa_2: float
) -> dict[str, list[float | None]]:
    """Each client's distance to the population's mix of labels, and what it becomes with all `pictures` [n]
    of the server's: at the server the two mixes weigh as in Eq. (1), elsewhere the pictures lie among the
    client's own.

    Args:
        section: the augmentation's.
        counts: of each label at each client [clients, labels].
        pictures: the label of each picture [n].
        kappa_2: what the augmented model weighed in the last round.
    """
    population = counts.sum(0)
    names = counts.shape[1]
    painted = np.bincount(pictures if len(pictures) else order(section, population), minlength=names)
    if section.at == "server":
        sizes = np.maximum(counts.sum(1, keepdims=True), 1)
        mixed = (1 - kappa_2) * counts / sizes + kappa_2 * painted / max(1, painted.sum())
    elif section.at == "server_broadcast":
        mixed = counts + painted
    else:
        mixed = counts + np.stack([np.bincount(order(section, own), minlength=names) for own in counts])
    return {
        f"emd_{when}": rounded_or_none(distance(mix, population), counts)
        for when, mix in (("before", counts), ("after", mixed))
    }
