"""The samples of a batch as rows of tokens, without what their loss does not depend on: padded ones, or all
in one row."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fedray.learners.transformer import UNJUDGED, Tokens


class Rows(NamedTuple):
    """What a network is given, and what its logits are judged by.

    Attributes:
        tokens: [r, m] int64.
        positions: [r, m] int64, each token's within its sample.
        columns: [c] int64, of those that some row has something judged in.
        targets: [r, c] int64, UNJUDGED where nothing is asked.
        weights: [r, c], of each token's sample; None: all the same.
    """

    tokens: Tensor
    positions: Tensor
    columns: Tensor
    targets: Tensor
    weights: Tensor | None


def rows(batch: Tokens, packing: bool) -> Rows:
    """A batch whose samples end with the last token that anything judged depends on: what comes behind it
    changes no loss, as no token attends to later ones. Of a batch with nothing judged one token stays.

    Args:
        batch: of b samples of l tokens.
        packing: whether all samples stand in one row, one behind another; otherwise there is a row each, as
            long as the longest.
    """
    tokens = batch.tokens
    targets = batch.targets
    places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    weights = None if batch.weight is None else batch.weight[:, None].expand(tokens.shape)
    if tokens.is_meta:  # every token is judged there
        return Rows(tokens, places, places[0], targets, weights)
    ends = ((targets != UNJUDGED) * (places + 1)).amax(1)  # of each sample, in tokens
    if packing:
        kept = places < ends[:, None]
        kept[0, 0] |= ~kept.any()
        tokens, targets, places = (values[kept][None] for values in (tokens, targets, places))
        weights = None if weights is None else weights[kept][None]
    else:
        longest = max(1, int(ends.max()))
        tokens, targets, places = (values[:, :longest] for values in (tokens, targets, places))
        weights = None if weights is None else weights[:, :longest]
    columns = (targets != UNJUDGED).any(0).nonzero()[:, 0]
    return Rows(
        tokens, places, columns, targets[:, columns], None if weights is None else weights[:, columns]
    )
