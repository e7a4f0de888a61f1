"""Draws that a section gives bounds of."""

import numpy as np


def uniform(rng: np.random.Generator, bounds: list[float], count: int) -> np.ndarray:
    """So many numbers between two bounds [count]."""
    lowest, highest = bounds
    return rng.uniform(lowest, highest, count)
