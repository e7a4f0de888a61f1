"""Which samples each client's own model is tested on (`evaluation.clients`)."""

from collections.abc import Mapping

import numpy as np

from fedray.data.samples import Samples
from fedray.randomness import generator


def split_own(indices: np.ndarray, share: float, seed: int, client: int) -> tuple[np.ndarray, np.ndarray]:
    """A client's own samples [n]: those that it trains on, and those that it is tested on, both ascending. Of
    two samples or more at least one is on either side; a single one is trained on.

    Args:
        indices: of its samples.
        share: of them that is held out.
        seed: the scenario's.
        client: by number.
    """
    n = len(indices)
    held_out = min(max(1, round(share * n)), n - 1) if n > 1 else 0
    drawn = generator(seed, 0, client, "client test").permutation(n)[:held_out]
    tests = np.zeros(n, bool)
    tests[drawn] = True
    return indices[~tests], indices[tests]


def in_mix_of(own: np.ndarray, labels: np.ndarray, seed: int, client: int) -> np.ndarray:
    """Places of test samples in a client's own mix of labels, ascending: as many as the scarcest of its
    labels allows. Labels that the test set lacks are left out; nothing where it lacks all.

    Args:
        own: labels of the client's samples.
        labels: of the test samples [n].
        seed: the scenario's.
        client: by number.
    """
    known, counts = np.unique(own, return_counts=True)
    there = np.array([np.count_nonzero(labels == label) for label in known])
    if not there.any():
        return np.empty(0, np.int64)
    known = known[there > 0]
    mix = counts[there > 0] / counts[there > 0].sum()
    there = there[there > 0]
    n = int(np.floor((there / mix).min() + 1e-9))
    whole = np.floor(mix * n + 1e-9).astype(int)
    # what is left of the n goes to the largest remainders
    rest = np.argsort(-(mix * n - whole), kind="stable")[: n - whole.sum()]
    whole[rest] += 1
    rng = generator(seed, 0, client, "client test")
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[: min(count, limit)]
        for label, count, limit in zip(known, whole, there, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def matched(
    samples: Samples, held: Mapping[int, np.ndarray], test: Samples, places: np.ndarray, seed: int
) -> dict[int, np.ndarray]:
    """By client, the indices of test samples in its own mix of labels.

    Args:
        samples: that clients train on.
        held: which of them each client has.
        test: the test set.
        places: of the test samples that may be tested on.
        seed: the scenario's.
    """
    labels = test.labels[places]
    return {
        client: places[in_mix_of(samples.labels[indices], labels, seed, client)]
        for client, indices in held.items()
    }
