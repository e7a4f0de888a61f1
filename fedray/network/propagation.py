"""Path loss, line of sight and shadowing in closed form. Distances in metres, frequencies in gigahertz,
losses in decibel."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedray.network.geometry import cache_last_call
from fedray.randomness import SERVER_ID, generator
from fedray.scenario.radio import LogDistance

LIGHT_MPS = 299_792_458.0
# plane waves that make a field of shadowing; places whose numbers stay in the processor's cache
PLANE_WAVES = 128
CHUNK = 1024
Loss = Callable[[np.ndarray, float], np.ndarray]


def free_space(d: np.ndarray, f: float) -> np.ndarray:
    return 32.45 + 20 * np.log10(d) + 20 * np.log10(f)


def log_distance(section: LogDistance, d: np.ndarray) -> np.ndarray:
    return section.loss_db + 10 * section.exponent * np.log10(d / section.at_m)


class SidelinkModel(NamedTuple):
    """Between two devices at the same height. `path_loss_nlos` is NLOS for d2d, and NLOSv, behind a vehicle,
    for the others; its third argument is each pair's standard normal draw of how much the vehicle is in the
    way."""

    los_probability: Callable[[np.ndarray], np.ndarray]
    path_loss_los: Loss
    path_loss_nlos: Callable[[np.ndarray, float, np.ndarray], np.ndarray]
    shadowing_db: float  # the same in both
    k_db: tuple[float, float]  # mean K-factor, LOS and NLOS; -inf: Rayleigh


def urban_los_probability(d: np.ndarray) -> np.ndarray:
    """3GPP TR 37.885, Table 6.2-1."""
    return np.minimum(1, 1.05 * np.exp(-0.0114 * d))


def highway_los_probability(d: np.ndarray) -> np.ndarray:
    near = np.minimum(1, 2.1013e-6 * d**2 - 0.002 * d + 1.0193)
    return np.where(d <= 475, near, np.maximum(0, 0.54 - 0.001 * (d - 475)))


def street_los_probability(d: np.ndarray) -> np.ndarray:
    """ITU-R M.2135, urban micro, which TR 36.843 takes over."""
    return np.minimum(18 / d, 1) * (1 - np.exp(-d / 36)) + np.exp(-d / 36)


def urban_path_loss_los(d: np.ndarray, f: float) -> np.ndarray:
    """3GPP TR 37.885, Table 6.2.1-1."""
    return 38.77 + 16.7 * np.log10(d) + 18.2 * np.log10(f)


def highway_path_loss_los(d: np.ndarray, f: float) -> np.ndarray:
    """3GPP TR 37.885, Table 6.2.1-1."""
    return 32.4 + 20 * np.log10(d) + 20 * np.log10(f)


def vehicle_loss(d: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """What a vehicle as high as the antennas adds to a line of sight (NLOSv; 3GPP TR 37.885, 6.2.1, the case
    in which the blocker is neither higher nor lower than both antennas): normal in decibel with standard
    deviation 4, never below 0."""
    return np.maximum(0.0, 5 + np.maximum(0.0, 15 * np.log10(d) - 41) + 4 * draw)


def d2d_path_loss_los(d: np.ndarray, f: float) -> np.ndarray:
    """WINNER+ B1 (D5.3, Table 4-1) with antennas at 1.5 m, 0.8 m above what reflects; no less than free
    space."""
    breakpoint_m = 4 * 0.8 * 0.8 * f * 1e9 / 3e8
    far = 40 * np.log10(d) + 7.56 - 2 * 17.3 * np.log10(0.8) + 2.7 * np.log10(f)
    return np.maximum(
        free_space(d, f), np.where(d < breakpoint_m, 22.7 * np.log10(d) + 27 + 20 * np.log10(f), far)
    )


def d2d_path_loss_nlos(d: np.ndarray, f: float, draw: np.ndarray) -> np.ndarray:
    """The same, without line of sight and less the 5 dB of TR 36.843, Table A.2.1.2-1."""
    if f < 1.5:
        base = 16.33 + 26.16 * np.log10(f)
    elif f < 2:
        base = 14.78 + 34.97 * np.log10(f)
    else:
        base = 18.38 + 23 * np.log10(f)
    return np.maximum(
        free_space(d, f), (44.9 - 6.55 * np.log10(1.5)) * np.log10(d) + 5.83 * np.log10(1.5) + base - 5
    )


# TR 37.885: shadowing of Table 6.2.1-1, 3 dB in LOS and NLOSv alike; K-factors of Table 6.2.3-1, whose NLOSv
# has a mean of 0 dB. NLOS, round a corner, is a matter of where streets are and not of chance: there are no
# streets here.
SIDELINK_MODELS = {
    "urban": SidelinkModel(
        urban_los_probability,
        urban_path_loss_los,
        lambda d, f, draw: urban_path_loss_los(d, f) + vehicle_loss(d, draw),
        3.0,
        (3.48, 0.0),
    ),
    "highway": SidelinkModel(
        highway_los_probability,
        highway_path_loss_los,
        lambda d, f, draw: highway_path_loss_los(d, f) + vehicle_loss(d, draw),
        3.0,
        (9.0, 0.0),
    ),
    "d2d": SidelinkModel(street_los_probability, d2d_path_loss_los, d2d_path_loss_nlos, 7.0, (9.0, -np.inf)),
}


@cache_last_call
def shadowing(places: np.ndarray, correlation_m: float, seed: int) -> np.ndarray:
    """A standard normal field at these places [n], with correlation exp(-d / correlation_m) (Gudmundson
    1991), as a sum of plane waves whose wave numbers are drawn from that correlation's spectrum (a bivariate
    Cauchy). It costs n, not n^2, and for a device that moves it changes as the places do."""
    rng = generator(seed, 0, SERVER_ID, "shadowing")
    number = rng.standard_normal((2, PLANE_WAVES)) / np.abs(rng.standard_normal(PLANE_WAVES)) / correlation_m
    phase = rng.uniform(0, 2 * np.pi, PLANE_WAVES)
    parts = (places[i : i + CHUNK] for i in range(0, len(places), CHUNK))
    # Not a matrix product, whose last digit depends on how many places are computed at once.
    waves = (part[:, :1] * number[0] + part[:, 1:] * number[1] + phase for part in parts)
    return np.sqrt(2 / PLANE_WAVES) * np.concatenate([np.cos(each).sum(1) for each in waves])
