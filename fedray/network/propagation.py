"""Path loss, line of sight and shadowing in closed form. Distances in metres, frequencies in gigahertz, losses in decibel."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedray.network.geometry import remembered
from fedray.randomness import SERVER, generator
from fedray.scenario.network import LogDistance

LIGHT_MPS = 299_792_458.0
WAVES, TOGETHER = 128, 1024  # plane waves that make a field of shadowing; places whose numbers stay in the processor's cache
Loss = Callable[[np.ndarray, float], np.ndarray]


def free_space(d: np.ndarray, f: float) -> np.ndarray:
    return 32.45 + 20 * np.log10(d) + 20 * np.log10(f)


def log_distance(section: LogDistance, d: np.ndarray) -> np.ndarray:
    return section.loss_db + 10 * section.exponent * np.log10(d / section.at_m)


class DeviceModel(NamedTuple):
    """Between two devices at the same height; `blocked` is what 3GPP calls NLOS, or NLOSv behind a vehicle."""

    sight: Callable[[np.ndarray], np.ndarray]  # the chance of a line of sight
    clear: Loss
    blocked: Loss
    shadowing_db: tuple[float, float]  # clear, blocked
    k_db: float  # in line of sight


def urban_sight(d: np.ndarray) -> np.ndarray:
    """3GPP TR 37.885, Table 6.2-1."""
    return np.minimum(1, 1.05 * np.exp(-0.0114 * d))


def highway_sight(d: np.ndarray) -> np.ndarray:
    near = np.minimum(1, 2.1013e-6 * d**2 - 0.002 * d + 1.0193)
    return np.where(d <= 475, near, np.maximum(0, 0.54 - 0.001 * (d - 475)))


def street_sight(d: np.ndarray) -> np.ndarray:
    """ITU-R M.2135, urban micro, which TR 36.843 takes over."""
    return np.minimum(18 / d, 1) * (1 - np.exp(-d / 36)) + np.exp(-d / 36)


def highway_clear(d: np.ndarray, f: float) -> np.ndarray:
    """3GPP TR 37.885, Table 6.2.1-1."""
    return 32.4 + 20 * np.log10(d) + 20 * np.log10(f)


def highway_blocked(d: np.ndarray, f: float) -> np.ndarray:
    """A vehicle between antennas of its height: the mean of what it adds (TR 37.885, 6.2.1)."""
    return highway_clear(d, f) + 5 + np.maximum(0, 15 * np.log10(d) - 41)


def d2d_clear(d: np.ndarray, f: float) -> np.ndarray:
    """WINNER+ B1 (D5.3, Table 4-1) with antennas at 1.5 m, 0.8 m above what reflects; no less than free space."""
    breakpoint_m = 4 * 0.8 * 0.8 * f * 1e9 / 3e8
    far = 40 * np.log10(d) + 7.56 - 2 * 17.3 * np.log10(0.8) + 2.7 * np.log10(f)
    return np.maximum(free_space(d, f), np.where(d < breakpoint_m, 22.7 * np.log10(d) + 27 + 20 * np.log10(f), far))


def d2d_blocked(d: np.ndarray, f: float) -> np.ndarray:
    """The same, without line of sight and less the 5 dB of TR 36.843, Table A.2.1.2-1."""
    base = 16.33 + 26.16 * np.log10(f) if f < 1.5 else 14.78 + 34.97 * np.log10(f) if f < 2 else 18.38 + 23 * np.log10(f)
    return np.maximum(free_space(d, f), (44.9 - 6.55 * np.log10(1.5)) * np.log10(d) + 5.83 * np.log10(1.5) + base - 5)


DEVICE_MODELS = {
    "urban": DeviceModel(
        urban_sight,
        lambda d, f: 38.77 + 16.7 * np.log10(d) + 18.2 * np.log10(f),
        lambda d, f: 36.85 + 30 * np.log10(d) + 18.9 * np.log10(f),
        (3.0, 4.0), 3.48,
    ),
    "highway": DeviceModel(highway_sight, highway_clear, highway_blocked, (3.0, 4.0), 9.0),
    "d2d": DeviceModel(street_sight, d2d_clear, d2d_blocked, (7.0, 7.0), 9.0),
}  # fmt: skip


@remembered
def shadowing(places: np.ndarray, correlation_m: float, seed: int) -> np.ndarray:
    """A standard normal field at these places [n], with correlation exp(-d / correlation_m) (Gudmundson 1991), as a sum of
    plane waves whose wave numbers are drawn from that correlation's spectrum (a bivariate Cauchy). It costs n, not n^2, and
    who moves sees it change as the places do."""
    rng = generator(seed, 0, SERVER, "shadowing")
    number = rng.standard_normal((2, WAVES)) / np.abs(rng.standard_normal(WAVES)) / correlation_m
    phase = rng.uniform(0, 2 * np.pi, WAVES)
    parts = (places[i : i + TOGETHER] for i in range(0, len(places), TOGETHER))
    return np.sqrt(2 / WAVES) * np.concatenate([np.cos(part @ number + phase).sum(1) for part in parts])
