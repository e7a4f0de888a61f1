"""`evaluation.gradient_bound`: how far a client's gradient can lie from the population's, because of its
labels."""

import numpy as np
import torch
from torch import Tensor

from fedray.evaluation.evaluation import Evaluation
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner

AT_ONCE = 500  # images


class GradientBound(Evaluation):
    """The bound at the global model, with label gradients of the test set."""

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        test_set = context.test_set()
        assert test_set is not None  # see the section's conflicts
        samples, indices = test_set
        counts = context.label_counts()
        norms = np.zeros(counts.shape[1])
        for label in range(len(norms)):
            of_label = indices[samples.labels[indices] == label]
            if len(of_label):
                norms[label] = _mean_gradient_norm(learner, learner.encode(samples, of_label), len(of_label))
        bounds = gradient_bounds(counts, norms)
        return {"eval_gradient_bound": float(bounds.mean()), "eval_gradient_bound_max": float(bounds.max())}


def gradient_bounds(counts: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Of each client that holds samples, sum_y |p_n(y) - p(y)| g_y >= |grad F_n - grad F|, where the samples
    of a label are alike wherever they lie (Zhao et al. 2018, Prop. 3.1, with the norm of each label's mean
    gradient in place of its largest).

    Args:
        counts: of each label at each client [clients, labels].
        norms: g_y, of each label's mean gradient [labels].
    """
    held = counts[counts.sum(1) > 0]
    mixes = held / held.sum(1, keepdims=True)
    population = counts.sum(0) / counts.sum()
    bounds: np.ndarray = np.abs(mixes - population) @ norms
    return bounds


def _mean_gradient_norm(learner: Learner, shard: object, n: int) -> float:
    """The Euclidean norm of the gradient of the mean loss over n samples, of all that trains."""
    weights = [p for part in learner.parts.values() for p in part.parameters() if p.requires_grad]
    total: list[Tensor] = [torch.zeros_like(p, dtype=torch.float64) for p in weights]
    with torch.enable_grad(), learner.evaluating():
        for start in range(0, n, AT_ONCE):
            chosen = np.arange(start, min(start + AT_ONCE, n))
            loss = learner.loss(learner.draw(shard, chosen, torch.Generator())) * (len(chosen) / n)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for whole, gradient in zip(total, gradients, strict=True):
                if gradient is not None:
                    whole += gradient
    return float(torch.linalg.vector_norm(torch.cat([whole.flatten() for whole in total])))
