"""How nearly orthogonal the updates of a round are (Charles et al. 2021; GenFL, Qiang et al. 2024, Sec.
II-B2): the mean cosine of all pairs, of one sum."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedray.aggregation.accumulators import Accumulator, ExactSum


def add_direction(accumulator: Accumulator, update: Tensor, clients: int) -> None:
    """Adds an update's direction u / |u| to those of the round, exactly in any order; of a zero update there
    is none.

    Args:
        accumulator: of the round.
        update: numbers [n] that train.
        clients: whose directions may be added, at most.
    """
    length = float(torch.linalg.vector_norm(update, dtype=torch.float64))
    if accumulator.directions is None:
        accumulator.directions = ExactSum(len(update), clients)
    if length > 0:
        accumulator.directions.add(update.double() / length, 1, 0)


def mean_cosine(partials: Sequence[Accumulator]) -> float | None:
    """The mean cosine of all pairs of a round's updates: |sum of u_i / |u_i||^2 = n + 2 sum of cosines.

    Args:
        partials: what each host has accumulated.

    Returns:
        -1/(n-1) to 1; None of fewer than two updates, or where it is not measured.
    """
    sums = [partial.directions for partial in partials if partial.directions is not None]
    n = sum(one.added for one in sums)
    if n < 2:
        return None
    total = torch.stack([one.total for one in sums]).sum(0)
    return (float(total @ total) - n) / (n * (n - 1))
