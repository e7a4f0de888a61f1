"""Images that a latent diffusion model is trained on in several shapes."""

from collections.abc import Callable

import numpy as np

from fedray.data import Samples
from fedray.data.fitting import Size, buckets, nearest
from fedray.learners.families.family import Family
from fedray.learners.latents import LatentBuckets, LatentShard
from fedray.scenario.base import Refused


def shapes_of(family: Family, size: int) -> list[Size]:
    """The shapes that images are trained on in.

    Args:
        family: of the base model.
        size: of the square that none has more pixels than, pixels a side.

    Raises:
        Refused: where its networks take squares alone.
    """
    step = family.bucket_step
    if step is None:
        got = f"bucket for a {family.files.pipeline}"
        raise Refused("data.fit", got, "crop or pad: its images are squares here")
    # the stages of a U-Net round the sides of squares alone
    multiple = family.latent_factor * 2 ** len(family.denoiser.down_blocks)
    if size % multiple:
        raise Refused("model.resolution", f"{size} with buckets", f"a multiple of {multiple}")
    return buckets(size, step)


def in_buckets(
    samples: Samples,
    indices: np.ndarray,
    shapes: list[Size],
    encode: Callable[[np.ndarray, Size], LatentShard],
) -> LatentBuckets:
    """A client's samples, each in the shape that is nearest to its own.

    Args:
        samples: of a client.
        indices: which of them.
        shapes: that there are.
        encode: some of the samples, in a shape.
    """
    groups = np.array([nearest(samples.image(int(i)).size, shapes) for i in indices])
    used = np.unique(groups)
    rows = np.empty(len(indices), np.int64)
    shards = []
    for group in used:
        places = np.flatnonzero(groups == group)
        rows[places] = np.arange(len(places))
        shards.append(encode(indices[places], shapes[group]))
    return LatentBuckets(shards, np.searchsorted(used, groups), rows)
