"""The least energy with which devices train and send before a deadline: CPU frequencies, shares of the band
and amounts of generated data together (the problem of FIMI, Li et al. 2024). No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from fedray.network.allocation import SHARES, Rate

LEAST_SHARE = float(SHARES[0])
BISECTIONS = 60  # of the logarithm of a share
TOLERANCE = 1e-7  # of constraints, relative
# of the time that is left, what the highest frequency spares: the table's rates are not exact
SPARED = 1e-4


@dataclass(frozen=True)
class Tasks:
    """What devices do in a round, each an array [n].

    Attributes:
        cycles: of its CPU before it sends.
        capacitance: k of a cycle's energy k f^2, in J / Hz^2.
        most_hz: its highest frequency.
        left_s: what the deadline leaves it for computing and sending.
        power_w: that it sends with.
    """

    cycles: np.ndarray
    capacitance: np.ndarray
    most_hz: np.ndarray
    left_s: np.ndarray
    power_w: np.ndarray

    @property
    def spare_s(self) -> np.ndarray:
        """What is left for sending at the highest frequency, to be in time for certain."""
        spare: np.ndarray = (1 - SPARED) * self.left_s - self.cycles / self.most_hz
        return spare

    def of(self, some: np.ndarray) -> Tasks:
        """Those of some devices, by index or mask."""
        return Tasks(*(getattr(self, name)[some] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Uploads:
    """How long transfers take [n] over shares of the band [n], and the derivative of that, both functions."""

    seconds: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def linear(cls, bits: float | np.ndarray, rate_bps: np.ndarray) -> Uploads:
        """Over links whose rate is their share of `rate_bps` [n]."""
        whole_s = bits / rate_bps
        return cls(lambda share: whole_s / share, lambda share: -whole_s / share**2)

    @classmethod
    def of_rate(cls, bits: np.ndarray, rate: Rate) -> Uploads:
        """By a table of rates, between whose shares a monotone spline goes; infinite where the rate is 0."""
        from scipy.interpolate import PchipInterpolator

        rates = np.maximum.accumulate(rate(np.repeat(SHARES[:, None], len(bits), axis=1)), axis=0)
        sends = rates[-1] > 0
        log_s = np.log(np.maximum(bits, 1e-9) / np.where(rates > 0, rates, 1e-30))
        spline = PchipInterpolator(np.log(SHARES), log_s)
        steeper = spline.derivative()
        column = np.arange(len(bits))

        def seconds(share: np.ndarray) -> np.ndarray:
            return np.where(sends, np.exp(spline(np.log(share))[column, column]), np.inf)

        def slope(share: np.ndarray) -> np.ndarray:
            at: np.ndarray = steeper(np.log(share))[column, column]
            return seconds(share) * at / share

        return cls(seconds, slope)

    def of(self, some: np.ndarray) -> Uploads:
        """Those of some devices, by a mask [n]."""
        whole = np.ones(len(some))

        def among(values: Callable[[np.ndarray], np.ndarray], share: np.ndarray) -> np.ndarray:
            all_of = whole.copy()
            all_of[some] = share
            return values(all_of)[some]

        return Uploads(lambda share: among(self.seconds, share), lambda share: among(self.slope, share))

    def least_share(self, seconds: np.ndarray) -> np.ndarray:
        """The least share of each that takes at most so long; infinite where the whole band takes longer."""
        low = np.full(len(seconds), np.log(LEAST_SHARE))
        high = np.zeros(len(seconds))
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            enough = self.seconds(np.exp(middle)) <= seconds
            high = np.where(enough, middle, high)
            low = np.where(enough, low, middle)
        in_time = self.seconds(np.ones(len(seconds))) <= seconds
        return np.where(in_time, np.exp(high), np.inf)


@dataclass(frozen=True)
class Generated:
    """Generated samples, of which so many are needed, and what one takes. Arrays [n] are each device's.

    Attributes:
        needed: in all.
        most: that a device may get.
        cycles: of its CPU.
        seconds: before it computes.
        joules: elsewhere.
        made_s: seconds before it computes that one takes where all devices get the same samples.
        made_j: joules of that.
        made: how many of a device's are there already.
    """

    needed: float
    most: np.ndarray
    cycles: np.ndarray
    seconds: np.ndarray
    joules: np.ndarray
    made_s: float = 0.0
    made_j: float = 0.0
    made: np.ndarray | None = None


class Allocated(NamedTuple):
    """Generated samples, CPU frequency and share of the band of each device [n], and all that depends on
    them, in joules."""

    generated: np.ndarray
    frequency_hz: np.ndarray
    share: np.ndarray
    energy_j: float


def least_energy(
    tasks: Tasks, uploads: Uploads, generated: Generated | None = None, band: float = 1.0
) -> Allocated | None:
    """The least sum of k X f^2 + p t + what generated samples take elsewhere, where X are a device's cycles
    with its n samples, f = X / (what the deadline leaves beside the upload's t) its frequency, shares sum to
    `band` and amounts to what is needed: convex, by SLSQP. Where so many cannot be in time, as many as can.

    Args:
        tasks: what devices do without generated samples.
        uploads: how long sending takes them.
        generated: samples beside their own; None: none.
        band: the part of it that they share.

    Returns:
        None where not even without generated samples all are in time.
    """
    least = uploads.least_share(tasks.spare_s)
    if not least.sum() <= band:
        return None
    n = len(least)
    start = least + (band - least.sum()) / n
    problem = _Problem(tasks, uploads, least, band, generated)
    if generated is None or generated.needed <= 0:
        return problem.allocated(problem.solve(start * n))
    nothing = np.concatenate([start * n, np.zeros(n + 1)])
    most = problem.most(nothing)
    reached = float(most[n : 2 * n].sum())
    if reached < 1 - TOLERANCE:
        return problem.allocated(most)
    part = min(1.0, 1 / reached)
    return problem.allocated(problem.solve(nothing + part * (most - nothing)))


class _Problem:
    """In numbers x around 1: shares times n; then, with generated samples, each device's amount and the
    greatest that is yet to be made, in parts of what is needed."""

    def __init__(
        self, tasks: Tasks, uploads: Uploads, least: np.ndarray, band: float, generated: Generated | None
    ) -> None:
        n = len(least)
        self.n = n
        self.tasks = tasks
        self.uploads = uploads
        self.least = least
        self.band = band
        none = np.zeros(n)
        self.generates = generated is not None and generated.needed > 0
        self.more = generated or Generated(0.0, none, none, none, none)
        self.needed = max(self.more.needed, 1e-300)
        self.made = none if self.more.made is None else self.more.made

    def split(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Shares, amounts, and the greatest that is yet to be made."""
        n = self.n
        if not self.generates:
            return x / n, np.zeros(n), 0.0
        return x[:n] / n, x[n : 2 * n] * self.needed, float(x[2 * n]) * self.needed

    def cycles_and_s(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each device's cycles, and the seconds that it has for them."""
        share, amount, greatest = self.split(x)
        cycles = self.tasks.cycles + self.more.cycles * amount
        before_s = self.more.seconds * amount + self.more.made_s * greatest
        left_s = self.tasks.left_s - before_s - self.uploads.seconds(np.maximum(share, LEAST_SHARE))
        return cycles, left_s

    def energy(self, x: np.ndarray) -> float:
        share, amount, greatest = self.split(x)
        cycles, left_s = self.cycles_and_s(x)
        train_j = self.tasks.capacitance * cycles**3 / self._positive(left_s) ** 2
        send_j = self.tasks.power_w * self.uploads.seconds(np.maximum(share, LEAST_SHARE))
        return float((train_j + send_j + self.more.joules * amount).sum() + self.more.made_j * greatest)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        share, _, _ = self.split(x)
        cycles, left_s = self.cycles_and_s(x)
        seconds = self._positive(left_s)
        by_cycle = 3 * self.tasks.capacitance * cycles**2 / seconds**2
        by_second = 2 * self.tasks.capacitance * cycles**3 / seconds**3
        slope = self.uploads.slope(np.maximum(share, LEAST_SHARE))
        by_share = slope * (by_second + self.tasks.power_w) / self.n
        if not self.generates:
            return by_share
        more = self.more
        by_amount = by_cycle * more.cycles + by_second * more.seconds + more.joules
        by_greatest = by_second.sum() * more.made_s + more.made_j
        return np.concatenate([by_share, self.needed * by_amount, [self.needed * by_greatest]])

    def slack(self, x: np.ndarray) -> np.ndarray:
        """What is left at the highest frequency, in parts of what the deadline leaves."""
        cycles, left_s = self.cycles_and_s(x)
        return (left_s - cycles / self.tasks.most_hz) / self.tasks.left_s - SPARED

    def slack_jacobian(self, x: np.ndarray) -> np.ndarray:
        share, _, _ = self.split(x)
        slope = self.uploads.slope(np.maximum(share, LEAST_SHARE))
        by_share = np.diag(-slope / self.n / self.tasks.left_s)
        if not self.generates:
            return by_share
        more = self.more
        by_amount = -(more.seconds + more.cycles / self.tasks.most_hz) * self.needed
        by_greatest = np.full((self.n, 1), -more.made_s * self.needed) / self.tasks.left_s[:, None]
        return np.hstack([by_share, np.diag(by_amount / self.tasks.left_s), by_greatest])

    def solve(self, start: np.ndarray) -> np.ndarray:
        """The x of the least energy that SLSQP finds from a start that is in time."""
        unit = max(self.energy(start), 1e-300)
        constraints = self._constraints()
        if self.generates:
            amounts = np.concatenate([np.zeros(self.n), np.ones(self.n), [0.0]])
            constraints.append(_linear("ineq", amounts[None], np.array([-1.0])))
        found = self._minimised(
            lambda x: self.energy(x) / unit, lambda x: self.gradient(x) / unit, start, constraints
        )
        return found if self.energy(found) <= self.energy(start) else start

    def most(self, start: np.ndarray) -> np.ndarray:
        """The x with the most generated samples that are in time, up to what is needed."""
        amounts = np.concatenate([np.zeros(self.n), -np.ones(self.n), [0.0]])
        constraints = [*self._constraints(), _linear("ineq", amounts[None], np.array([1.0 + 1e-9]))]
        return self._minimised(lambda x: float(amounts @ x), lambda x: amounts, start, constraints)

    def _constraints(self) -> list[dict[str, Any]]:
        n = self.n
        rest = n + 1 if self.generates else 0
        whole = np.concatenate([np.ones(n), np.zeros(rest)])[None]
        constraints: list[dict[str, Any]] = [
            _linear("eq", whole, np.array([-n * self.band])),
            {"type": "ineq", "fun": self.slack, "jac": self.slack_jacobian},
        ]
        if self.generates and (self.more.made_s or self.more.made_j):
            greatest = np.hstack([np.zeros((n, n)), -np.eye(n), np.ones((n, 1))])
            constraints.append(_linear("ineq", greatest, self.made / self.needed))
        return constraints

    def _minimised(
        self,
        value: Callable[[np.ndarray], float],
        gradient: Callable[[np.ndarray], np.ndarray],
        start: np.ndarray,
        constraints: list[dict[str, Any]],
    ) -> np.ndarray:
        """What SLSQP finds; the start where that is not in time."""
        from scipy.optimize import minimize

        bounds: list[tuple[float, float | None]] = [
            (float(low) * self.n, float(self.n)) for low in self.least
        ]
        if self.generates:
            most = np.minimum(self.more.most, self.needed) / self.needed
            bounds += [(0.0, float(m)) for m in most] + [(0.0, None)]
        options = {"maxiter": 300, "ftol": 1e-13}
        found = minimize(
            value,
            start,
            jac=gradient,
            method="SLSQP",
            bounds=bounds,
            constraints=constraints,
            options=options,
        )
        x: np.ndarray = np.clip(
            found.x, [low for low, _ in bounds], [np.inf if b is None else b for _, b in bounds]
        )
        late = not np.isfinite(x).all() or self.slack(x).min() < -TOLERANCE
        return start if late or x[: self.n].sum() > self.n * self.band * (1 + TOLERANCE) else x

    def allocated(self, x: np.ndarray) -> Allocated:
        share, amount, _ = self.split(x)
        cycles, left_s = self.cycles_and_s(x)
        hz = np.minimum(cycles / self._positive(left_s), self.tasks.most_hz)
        return Allocated(amount, hz, share / share.sum() * self.band, self.energy(x))

    @staticmethod
    def _positive(seconds: np.ndarray) -> np.ndarray:
        return np.maximum(seconds, 1e-9)


def _linear(kind: str, rows: np.ndarray, offset: np.ndarray) -> dict[str, Any]:
    """rows x + offset, at least 0 or equal to it."""
    return {"type": kind, "fun": lambda x: rows @ x + offset, "jac": lambda x: rows}


def with_generated(tasks: Tasks, generated: Generated, amount: np.ndarray) -> Tasks:
    """What devices do with so many generated samples each [n]."""
    made = np.zeros(len(amount)) if generated.made is None else generated.made
    greatest = max(0.0, float((amount - made).max(initial=0.0)))
    before_s = generated.seconds * amount + generated.made_s * greatest
    return replace(tasks, cycles=tasks.cycles + generated.cycles * amount, left_s=tasks.left_s - before_s)
