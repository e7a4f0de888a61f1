"""Whether a sample was trained on, by its loss (membership inference, Yeom et al. 2018)."""

import numpy as np
import torch

from fedray.data import Samples
from fedray.learners.learner import Learner

FALSE_POSITIVES = 1e-3  # the share at which true positives are counted (Carlini et al. 2022)


@torch.no_grad()
def losses(learner: Learner, samples: Samples, indices: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Each sample's mean loss [n] over some draws of noise and timestep, the same ones for every sample.

    Args:
        learner: the model.
        samples: some of which are tried.
        indices: those [n].
        draws: of each sample.
        seed: of the draws.
    """
    result = np.empty(len(indices))
    with learner.evaluating():
        for i, index in enumerate(indices):
            shard = learner.encode(samples, np.array([index]))
            generator = torch.Generator().manual_seed(seed)
            result[i] = float(learner.loss(learner.draw(shard, np.zeros(draws, dtype=np.int64), generator)))
    return result


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """The area under the ROC curve of an attacker who takes low losses for those of members: how often a
    member's loss is lower than another sample's, ties counted half (Mann and Whitney's U, divided by the
    number of pairs). 0.5 is chance."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([others, members]))
    n = len(others)
    higher = ranks[:n].sum() - n * (n + 1) / 2
    return float(higher / (n * len(members)))


def true_positives(members: np.ndarray, others: np.ndarray) -> float:
    """The share of members that an attacker names who names at most FALSE_POSITIVES of the others: by the
    highest threshold that allows this, with nothing interpolated. With fewer than 1,000 others it names none
    of them."""
    allowed = int(FALSE_POSITIVES * len(others))
    threshold = np.sort(others)[allowed]
    return float((members < threshold).mean())
