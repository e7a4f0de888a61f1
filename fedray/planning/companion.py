"""What is known of a scenario's companion before it works: what the server does beside its clients'
rounds."""

from typing import NamedTuple


class CompanionWork(NamedTuple):
    """What the images that it generates take."""

    flops_per_image: float = 0.0
    image_size: int = 0  # pixels a side
    image_bytes: int = 0  # on the air
