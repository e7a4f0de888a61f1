"""How good a picture is after how many denoising steps."""

import numpy as np

from fedray.scenario.providers import Exponential, Quality
from fedray.serving.draws import uniform

EAT_FLOOR = 5  # steps below which there is nothing
EAT_TOP = 0.27
# by its name, quality in 0..1 at steps in rising order; 0 at none, the last value beyond
CURVES: dict[str, dict[int, float]] = {
    # of 200 garments at guidance 7.5
    "tiny_sd": {1: 0.69, 2: 0.965, 3: 0.99, 4: 0.99, 5: 0.995, 10: 0.99, 20: 0.99, 40: 0.99},
    "ddpm": {steps: 5.3 / fid for steps, fid in ((10, 40.9), (50, 15.6), (100, 11.1), (1000, 5.3))},
    "eat": {EAT_FLOOR - 1: 0.0}
    | {s: (0.16 * np.log(s) / np.log(6) - 0.02) / EAT_TOP for s in range(EAT_FLOOR, 30)}
    | {30: 1.0},
}


def curve(name: str, steps: np.ndarray) -> np.ndarray:
    """Quality in 0..1 after so many steps, on straight lines between the points of a measured curve."""
    points = {0: 0.0} | CURVES[name]
    return np.interp(steps, list(points), list(points.values()))


def qualities(
    section: Quality, steps: np.ndarray, providers: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Quality after each number of steps at every provider [providers, choices], and at one that is average
    [choices].

    Args:
        section: the scenario's `quality`.
        steps: to choose from [choices].
        providers: how many.
        rng: of what each has of its own.
    """
    top = uniform(rng, section.top, providers)[:, None]
    if isinstance(section, Exponential):
        tau = uniform(rng, section.tau, providers)[:, None]
        typical = np.mean(section.top) * (1 - np.exp(-steps / np.mean(section.tau)))
        return top * (1 - np.exp(-steps / tau)), typical
    shape = curve(section.name, steps)
    return top * shape, np.mean(section.top) * shape
