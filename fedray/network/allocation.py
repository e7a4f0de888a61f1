"""How a cell's band is shared among those who send at once. Shares sum to 1."""

import numpy as np


def min_max(bits: np.ndarray, ready_s: np.ndarray, gain_hz: np.ndarray, band_hz: float) -> np.ndarray:
    """Shares with which all finish together, the first time at which all can: the least bandwidth of each for a time T in
    closed form (Lambert's W, for Shannon's rate b log2(1 + g / b)), and T by root-finding on their sum.

    `gain_hz` is g = p h / N0, the bandwidth at which the signal-to-noise ratio is 1; one that cannot finish at all (g = 0)
    gets an equal share.
    """
    from scipy.optimize import brentq
    from scipy.special import lambertw

    able = (gain_hz > 0) & (bits > 0)
    if not able.any():
        return np.full(len(bits), 1 / len(bits))
    n, band = len(bits), band_hz * able.mean()
    bits, ready, gain = bits[able], ready_s[able], gain_hz[able]

    def needed(finish_s: float) -> np.ndarray:
        """Hertz for each to finish then; infinitely many where not even they are enough."""
        c = bits * np.log(2) / (gain * (finish_s - ready))
        with np.errstate(invalid="ignore", divide="ignore"):
            x = -np.real(lambertw(-c * np.exp(-c), -1)) / c - 1
        return np.where((c < 1) & (x > 0), gain / x, np.inf)

    first = float(np.max(ready + bits * np.log(2) / gain))  # with all the band in the world
    last = first + 1.0
    while not needed(last).sum() <= band:
        last = first + 2 * (last - first)
    lowest = first + 1e-12 * (last - first)
    finish = brentq(lambda t: min(float(needed(t).sum()), 1e30) - band, lowest, last, xtol=1e-12, rtol=1e-14, maxiter=500)
    share = np.full(n, 1 / n)
    share[able] = needed(finish) / needed(finish).sum() * able.mean()
    return share


def proportional_fair(gain_hz: np.ndarray, band_hz: float) -> np.ndarray:
    """Shares with the greatest product of rates b log2(1 + g / b): the marginal gain (x / g)(1 - x / ((1 + x) ln(1 + x))) of
    log rate, at x = g / b, is the same for all (Kelly 1997)."""
    from scipy.optimize import brentq

    x = np.logspace(-8, 14, 4000)
    with np.errstate(invalid="ignore"):
        marginal = np.maximum.accumulate(x * (1 - x / ((1 + x) * np.log1p(x))))
    gain = np.maximum(gain_hz, 1e-9 * band_hz)

    def hertz(log_price: float) -> np.ndarray:
        return gain / np.exp(np.interp(log_price + np.log(gain), np.log(marginal), np.log(x)))

    price = brentq(lambda p: np.log(hertz(p).sum() / band_hz), -np.log(band_hz) - 40, -np.log(band_hz) + 40, xtol=1e-12)
    share: np.ndarray = hertz(price)
    return share / share.sum()


def blocks(rates: np.ndarray) -> np.ndarray:
    """Rates of each client [n] from what each resource block would carry for it [n, blocks]: the assignment with the greatest
    sum in which all have equally many (Kuhn 1955)."""
    from scipy.optimize import linear_sum_assignment

    n, count = rates.shape
    each = count // n
    row, column = linear_sum_assignment(np.repeat(rates, each, axis=0), maximize=True)
    return np.bincount(row // each, weights=rates[row // each, column], minlength=n)


def energy_frequency_hz(second_w: float, kappa: float) -> float:
    """The frequency with the least kappa C f^2 + second_w C / f, for any number of cycles C."""
    return (second_w / (2 * kappa)) ** (1 / 3)
