"""How much data is generated for each device, at which CPU frequency it trains and which share of the band it
sends over, together (after FIMI, Li et al. 2024). No torch here."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Devices:
    """What devices do in a round, each an array [n].

    Attributes:
        samples: that each has.
        cycles: of its CPU for a sample's training.
        capacitance: k of a cycle's energy k f^2, in J / Hz^2.
        most_hz: its highest frequency.
        rate_bps: of its uplink over the whole band.
        power_w: that it sends with.
    """

    samples: np.ndarray
    cycles: np.ndarray
    capacitance: np.ndarray
    most_hz: np.ndarray
    rate_bps: np.ndarray
    power_w: np.ndarray


class Allocation(NamedTuple):
    """Generated samples, CPU frequency and share of the band of each device [n], and all devices' energy."""

    generated: np.ndarray
    frequency_hz: np.ndarray
    share: np.ndarray
    energy_j: float


def needed_samples(error: float, a: float, b: float) -> float:
    """How many samples an error needs, of the power law error = a samples^-b.

    Args:
        error: at most.
        a: scale.
        b: exponent.
    """
    return float((a / error) ** (1 / b))


def fill_missing(
    devices: Devices, update_bits: float, deadline_s: float, needed: float, quality: float = 1.0
) -> Allocation:
    """The least energy of all devices, of training k c (D + n) f^2 and of sending p t, with which each ends
    before the deadline, c (D + n) / f + t <= T where t = bits / (share rate), shares sum to 1, and
    sum (D + quality n) reaches what is needed. With the lowest frequency that is in time the problem is
    convex in n and the shares; by SLSQP.

    Args:
        devices: what they have.
        update_bits: of an update.
        deadline_s: of a round.
        needed: samples, of which a generated one counts as `quality`.
        quality: real samples that a generated one is worth.

    Raises:
        ValueError: where no allocation is in time.
    """
    from scipy.optimize import LinearConstraint, minimize

    n = len(devices.samples)
    missing = max(0.0, needed - float(devices.samples.sum())) / quality
    scale = max(1.0, missing)
    upload_s = update_bits / devices.rate_bps  # over the whole band

    def frequency(x: np.ndarray) -> np.ndarray:
        left_s = np.maximum(deadline_s - upload_s / x[n:], 1e-9)
        return devices.cycles * (devices.samples + scale * x[:n]) / left_s

    def energy(x: np.ndarray) -> float:
        cycles = devices.cycles * (devices.samples + scale * x[:n])
        train = devices.capacitance * cycles * frequency(x) ** 2
        return float((train + devices.power_w * upload_s / x[n:]).sum())

    def slack(x: np.ndarray) -> np.ndarray:
        """Of the frequencies, as parts of the highest, where shares leave time to train."""
        return 1 - frequency(x) / devices.most_hz

    of_samples = np.repeat([1.0, 0.0], n)
    total = LinearConstraint(of_samples, missing / scale, np.inf)
    whole = LinearConstraint(1 - of_samples, 1, 1)
    least = np.minimum(upload_s / deadline_s * (1 + 1e-6), 1)
    start = np.concatenate([np.full(n, missing / scale / n), least + (1 - least.sum()) / n])
    unit = max(energy(start), 1e-12)
    result = minimize(
        lambda x: energy(x) / unit,
        start,
        method="SLSQP",
        bounds=[(0, None)] * n + [(float(low), 1) for low in least],
        constraints=[total, whole, {"type": "ineq", "fun": slack}],
        options={"maxiter": 500, "ftol": 1e-12},
    )
    if least.sum() > 1 or slack(result.x).min() < -1e-6:
        raise ValueError(
            f"got a deadline of {deadline_s:g} s for {needed:g} samples, expected a later one, or fewer"
        )
    return Allocation(scale * result.x[:n], frequency(result.x), result.x[n:], energy(result.x))
