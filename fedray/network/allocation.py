"""How a cell's band is shared among those that send at once. Shares sum to 1; `rate(share)` gives the bits a
second of each [n] for shares [..., n], which never fall as shares grow."""

from collections.abc import Callable

import numpy as np

Rate = Callable[[np.ndarray], np.ndarray]
SHARES = np.logspace(-9, 0, 361)  # between which is interpolated
LEAST_TABLES = 3  # how often a table is computed again
MOST_TABLES = 20
CLOSE = 1e-5  # relative, to what sends in time, where it may end


def min_max(bits: np.ndarray, ready_s: np.ndarray, rate: Rate) -> np.ndarray:
    """Shares with which all finish together, the first time at which all can: the least share of each for a
    time T, and T by root-finding on their sum. One that cannot send at all, or will never be ready, gets an
    equal share."""
    from scipy.optimize import brentq

    n = len(bits)
    rows, able = _rate_table(rate, np.where(np.isfinite(ready_s), bits, 0.0))
    if not able.any():
        return np.full(n, 1 / n)
    share = np.full(n, 1 / n)
    bits = bits[able]
    ready = ready_s[able]
    # the table bends between its shares: what it was off by is added, and it is computed again
    for times in range(1, MOST_TABLES + 1):

        def needed(finish_s: float) -> np.ndarray:
            return _shares_at(rows, np.log(bits / (finish_s - ready)))  # noqa: B023

        first = float(np.max(ready + bits * np.exp(-rows[-1])))  # with the whole band each
        last = first + 1.0
        while needed(last).sum() > able.mean():
            last = first + 2 * (last - first)
        lowest = first + 1e-12 * (last - first)
        is_enough = needed(lowest).sum() <= able.mean()  # one needs no more band, but more power
        finish = lowest
        if not is_enough:
            finish = brentq(
                lambda t: min(needed(t).sum(), 1e30) - able.mean(),
                lowest,
                last,
                xtol=1e-12,
                rtol=1e-14,
            )
        share[able] = needed(finish) / needed(finish).sum() * able.mean()
        off = np.log(rate(share)[able] * (finish - ready) / bits)
        if times >= LEAST_TABLES and (is_enough or np.abs(off).max() < CLOSE):
            break
        rows = rows + off * (not is_enough)
    return share


def proportional_fair(gains: Rate, n: int) -> np.ndarray:
    """Shares with the greatest product of rates: a little more band would raise the logarithm of every rate
    as much (Kelly 1997)."""
    from scipy.optimize import brentq

    rows, able = _rate_table(gains, np.ones(n))
    share = np.full(n, 1 / n)
    if able.any():
        grows = np.maximum(np.gradient(rows, np.log(SHARES), axis=0), 1e-9)
        # of share, falling marginal gain upwards
        price = np.maximum.accumulate(np.log(SHARES)[:, None] - np.log(grows), axis=0)
        best = brentq(
            lambda p: min(_shares_at(price, np.full(able.sum(), p)).sum(), 1e30) - able.mean(),
            -40.0,
            40.0,
            xtol=1e-12,
        )
        share[able] = _shares_at(price, np.full(able.sum(), best))
    return share / share.sum()


def _rate_table(rate: Rate, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the rates at SHARES, rising [shares, able], of those that have something to send
    and can."""
    rates = rate(np.repeat(SHARES[:, None], len(bits), axis=1))
    able = (rates[-1] > 0) & (bits > 0)
    return np.maximum.accumulate(np.log(np.maximum(rates[:, able], 1e-30)), axis=0), able


def _shares_at(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The shares at which the rising columns of a table reach what is wanted of each; infinite where they
    never do."""
    i = np.clip((rows < wanted).sum(0), 1, len(rows) - 1)
    column = np.arange(rows.shape[1])
    low = rows[i - 1, column]
    high = rows[i, column]
    logs = np.log(SHARES)
    part = np.divide(wanted - low, high - low, out=np.zeros(len(low)), where=high > low)
    return np.where(
        wanted > rows[-1] + 1e-9,
        np.inf,
        np.exp(logs[i - 1] + np.clip(part, -1e3, 1.0) * (logs[i] - logs[i - 1])),
    )


def assign_blocks(rates: np.ndarray, served: np.ndarray) -> np.ndarray:
    """Which resource blocks each client gets, bool [n, blocks], of what each would carry for it [n, blocks]:
    the assignment with the greatest sum in which all have equally many (Kuhn 1955); of those left over one
    each to those they serve best, measured by what each was `served` before [n]."""
    from scipy.optimize import linear_sum_assignment

    n, count = rates.shape
    each = count // n
    taken = np.zeros((n, count), bool)
    row, column = linear_sum_assignment(np.repeat(rates, each, axis=0), maximize=True)
    taken[row // each, column] = True
    rest = np.flatnonzero(~taken.any(0))
    row, column = linear_sum_assignment(rates[:, rest] / np.maximum(served, 1e-9)[:, None], maximize=True)
    taken[row, rest[column]] = True
    return taken


def broadcast_time_s(seconds: np.ndarray) -> np.ndarray:
    """Of a broadcast, each listener's part of the time it takes: every moment is shared by those that still
    listen."""
    order = np.argsort(seconds, kind="stable")
    part = np.empty(len(seconds))
    part[order] = np.cumsum(np.diff(seconds[order], prepend=0.0) / np.arange(len(seconds), 0, -1))
    return part


def best_frequency_hz(second_w: float, kappa: float) -> float:
    """The frequency with the least kappa C f^2 + second_w C / f, for any number of cycles C."""
    return (second_w / (2 * kappa)) ** (1 / 3)
