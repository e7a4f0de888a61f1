"""How much data is generated for each device, at which CPU frequency it trains and which share of the band it
sends over, together (after FIMI, Li et al. 2024): over links whose rate grows with their share, in Python. A
run decides it by `augmentation.amount: {kind: joint}`. No torch here."""

from dataclasses import dataclass

import numpy as np

from fedray.network.least_energy import Allocated, Generated, Tasks, Uploads, least_energy

Allocation = Allocated


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
) -> Allocated:
    """The least energy of all devices, of training k c (D + n) f^2 and of sending p t, with which each ends
    before the deadline, c (D + n) / f + t <= T where t = bits / (share rate), shares sum to 1, and
    sum (D + quality n) reaches what is needed.

    Args:
        devices: what they have.
        update_bits: of an update.
        deadline_s: of a round.
        needed: samples, of which a generated one counts as `quality`.
        quality: real samples that a generated one is worth.

    Raises:
        ValueError: where no allocation is in time.
    """
    n = len(devices.samples)
    nothing = np.zeros(n)
    missing = max(0.0, needed - float(devices.samples.sum())) / quality
    tasks = Tasks(
        devices.cycles * devices.samples,
        devices.capacitance,
        devices.most_hz,
        np.full(n, deadline_s),
        devices.power_w,
    )
    generated = Generated(missing, np.full(n, np.inf), devices.cycles, nothing, nothing)
    best = least_energy(tasks, Uploads.linear(update_bits, devices.rate_bps), generated)
    if best is None or best.generated.sum() < missing * (1 - 1e-6):
        raise ValueError(
            f"got a deadline of {deadline_s:g} s for {needed:g} samples, expected a later one, or fewer"
        )
    return best
