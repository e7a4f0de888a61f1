"""Losses as means over samples, each of which may have a weight."""

import torch.nn.functional as F
from torch import Tensor


def weighted_mean(per_sample: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean over b samples of losses [b], each times its `weight` [b] where there are weights; weights of
    1 change nothing. It is not divided by their sum, so that the mean over a batch is that of its parts."""
    return per_sample.mean() if weight is None else (weight * per_sample).mean()


def cross_entropy(
    logits: Tensor, targets: Tensor, weight: Tensor | None = None, ignore: int = -100
) -> Tensor:
    """Mean cross entropy in fp32.

    Args:
        logits: [b, classes], or [b, l, classes] of l tokens.
        targets: [b] or [b, l] int64.
        weight: [b], of each sample, which all its tokens have.
        ignore: the target of what is not judged.
    """
    logits = logits.float()
    if weight is None:
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=ignore)
    each = F.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), ignore_index=ignore, reduction="none"
    ).view(len(targets), -1)
    # as without weights a mean over tokens, so that weights of 1 change nothing
    return (weight * each.sum(1)).sum() / (targets != ignore).sum().clamp(min=1)


def token_mean(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The cross entropy of a language model in fp32: the mean over all tokens that are judged, as in
    transformers; 0 where none is.

    Args:
        logits: [b, l, vocabulary].
        targets: [b, l] int64, -100 where nothing is asked.
        weights: [b, l], or [b] of each sample, which all its tokens have.
    """
    each = F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="none")
    if weights is not None:
        each = each.view(targets.shape) * (weights[:, None] if weights.dim() == 1 else weights)
    return each.sum() / (targets != -100).sum().clamp(min=1)


def squared_error(predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error in fp32 of values [b, ...]; `weight` [b]."""
    if weight is None:
        return F.mse_loss(predicted.float(), target)
    each = F.mse_loss(predicted.float(), target, reduction="none")
    return weighted_mean(each.flatten(1).mean(1), weight)
