"""Label sharing and the choice of labels to paint (GenFL, Qiang et al. 2024, Sec. III-A and III-B). Counts,
never samples."""

from collections.abc import Mapping

import numpy as np

from fedray.data import Samples
from fedray.data.partition import distance, label_counts, rounded_or_none
from fedray.randomness import generator
from fedray.scenario.augmentation import Augmentation
from fedray.scenario.scenario import Scenario


def reported(scenario: Scenario, samples: Samples, held: Mapping[int, np.ndarray]) -> np.ndarray:
    """What each client says it holds of each label, int [clients, labels]; with `population.label_epsilon`
    under Laplace noise of scale 1 / epsilon (one sample more or less changes one count by one), rounded, and
    never below zero."""
    counts, names = label_counts(samples, held), len(samples.label_names)
    if (epsilon := scenario.population.label_epsilon) is None:
        return counts
    noise = np.stack(
        [
            generator(scenario.seed, 0, c, "label counts").laplace(scale=1 / epsilon, size=names)
            for c in range(len(held))
        ]
    )
    return np.maximum(np.rint(counts + noise), 0).astype(int)


def order(section: Augmentation, counts: np.ndarray) -> np.ndarray:
    """The label of every picture that will be painted, in turn, int [at_most * labels], beside `counts`
    [labels] that are there. Round t has the first `painted(section, labels, t)` of them."""
    names = len(counts)
    if section.labels == "uniform":
        return np.tile(np.arange(names), section.at_most)
    have, left = counts.astype(int).copy(), np.full(names, section.at_most)
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


def covering(counts: np.ndarray, among: np.ndarray, n: int, rng: np.random.Generator) -> list[int]:
    """n of the clients `among`: one drawn at random, then always the one with which the labels of all chosen
    so far come nearest to evenly many of each (earth mover's distance; of equals, one at random)."""
    left = rng.permutation(among)
    chosen, together = [int(left[0])], counts[left[0]].astype(float)
    left = left[1:]
    while len(chosen) < n:
        pooled = together + counts[left]
        best = int(np.argmin(distance(pooled, np.ones(counts.shape[1]))))
        chosen.append(int(left[best]))
        together = pooled[best]
        left = np.delete(left, best)
    return chosen


def distances(
    section: Augmentation, counts: np.ndarray, pictures: np.ndarray, kappa_2: float
) -> dict[str, list[float | None]]:
    """Each client's distance to the population's mix of labels, and what it becomes with all `pictures` [n]
    of the server's: at the server the two mixes weigh as in Eq. (1), elsewhere the pictures lie among the
    client's own."""
    population, names = counts.sum(0), counts.shape[1]
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
