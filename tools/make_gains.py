"""Makes the shipped gains: a minute of twelve cars that drive up and down a street past three base stations,
180 m apart. Path loss of 3GPP TR 38.901's urban micro cell in line of sight at 3.5 GHz (Table 7.4.1-1), with
its 4 dB of shadowing, correlated over 10 m (Table 7.5-6), each car and base station by itself.

uv run python tools/make_gains.py fedray/shipped/synthetic-street.npz
"""

from __future__ import annotations

import sys

import numpy as np

CARS = 12
STEP_S = 0.5
TIMES = 120
STREET_M = 540.0
SITES_M = np.array([[90.0, 12.0], [270.0, -12.0], [450.0, 12.0]])
HEIGHT_M = 8.5  # of a base station above a car's antenna
SHADOWING_DB = 4.0
CORRELATION_M = 10.0


def gains() -> tuple[np.ndarray, np.ndarray]:
    """Gains in dB [time, car, base station], and seconds [time]."""
    rng = np.random.default_rng(2026)
    time_s = STEP_S * np.arange(TIMES)
    speed_mps = rng.uniform(6.0, 14.0, CARS)
    driven_m = rng.uniform(0.0, 2 * STREET_M, CARS) + speed_mps * time_s[:, None]
    along_m = STREET_M - np.abs(driven_m % (2 * STREET_M) - STREET_M)  # up the street and down again
    places_m = np.stack([along_m, np.zeros_like(along_m)], 2)
    distance_m = np.hypot(np.linalg.norm(places_m[:, :, None] - SITES_M, axis=3), HEIGHT_M)
    loss_db = 32.4 + 21 * np.log10(distance_m) + 20 * np.log10(3.5)

    shadow = np.empty(loss_db.shape)
    shadow[0] = rng.standard_normal(loss_db.shape[1:])
    alike = np.exp(-speed_mps * STEP_S / CORRELATION_M)[:, None]  # from one time to the next
    for t in range(1, TIMES):
        shadow[t] = alike * shadow[t - 1] + np.sqrt(1 - alike**2) * rng.standard_normal(loss_db.shape[1:])

    return -np.round(loss_db + SHADOWING_DB * shadow, 1).astype(np.float32), time_s


if __name__ == "__main__":
    gains_db, time_s = gains()
    np.savez_compressed(sys.argv[1], gains_db=gains_db, time_s=time_s)
