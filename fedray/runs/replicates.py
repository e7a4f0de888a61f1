"""Runs of one scenario under several seeds: which of some runs those are, and what their metrics say
together."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from os.path import commonprefix
from statistics import fmean, stdev
from typing import Any

CONFIDENCE = 0.95
# What says nothing of how a run learns, or which of several replicates it is.
OF_ONE_RUN = ("name", "description", "shows", "seed", "sweep")
ENDING = re.compile(r"[-_.]?seed-?-?\d+$")  # of a run's name, in which its seed stands


@dataclass(frozen=True)
class Estimate:
    """What values that independent runs measured say of their mean.

    Attributes:
        n: how many values.
        mean: theirs.
        std: their sample standard deviation (of n - 1 degrees of freedom); None for one value.
        half_width: of the mean's 95 % confidence interval by Student's t; None for one value.
    """

    n: int
    mean: float
    std: float | None
    half_width: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval; None for one value."""
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    def as_json(self) -> dict[str, Any]:
        """Its numbers by the names that they have in result.json."""
        interval = None if self.interval is None else list(self.interval)
        return {"n": self.n, "mean": self.mean, "std": self.std, "ci95": interval}

    @classmethod
    def of_json(cls, numbers: Mapping[str, Any]) -> "Estimate":
        """The estimate whose `as_json` that was."""
        half = None if numbers["ci95"] is None else numbers["ci95"][1] - numbers["mean"]
        return cls(numbers["n"], numbers["mean"], numbers["std"], half)


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """Mean, spread and confidence of values; those that are None, which no run has measured, do not count.
    None where there is no other.

    The interval is mean ± t * std / sqrt(n), with t the 0.975 quantile of Student's t distribution of n - 1
    degrees of freedom (Student 1908): it holds the true mean in 95 % of cases where values are independent
    and normal. With two values t is 12.7, with three 4.3.
    """
    known = [float(value) for value in values if value is not None]
    if not known:
        return None
    if len(known) == 1:
        return Estimate(1, known[0], None, None)
    from scipy.special import stdtrit  # as scipy.stats.t.ppf, which takes a second to import

    spread = stdev(known)
    t = float(stdtrit(len(known) - 1, (1 + CONFIDENCE) / 2))
    return Estimate(len(known), fmean(known), spread, t * spread / sqrt(len(known)))


def replicates(scenarios: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Runs by the variant that they are of: runs whose scenarios differ in nothing but the seed are one
    variant's. Two of the same seed are not, as the second one says nothing new.

    Args:
        scenarios: by the name of its run, with every default.
    """
    variants: list[tuple[str, set[int], list[str]]] = []
    for name, scenario in scenarios.items():
        key = json.dumps({k: v for k, v in scenario.items() if k not in OF_ONE_RUN}, sort_keys=True)
        seed = scenario["seed"]
        group = next((one for one in variants if one[0] == key and seed not in one[1]), None)
        if group is None:
            variants.append(group := (key, set(), []))
        group[1].add(seed)
        group[2].append(name)
    result: dict[str, list[str]] = {}
    for _, _, runs in variants:
        called = common_name(runs)
        result[called if called not in result and called not in scenarios else runs[0]] = runs
    return result


def common_name(runs: Sequence[str]) -> str:
    """What runs under several seeds are called together: their name without the seed, or what their names
    begin with alike; of a single run its own."""
    if len(runs) == 1:
        return runs[0]
    without = {ENDING.sub("", run) for run in runs}
    alike = commonprefix(list(runs))  # noqa: RUF071 (of characters, not of folders)
    shared = without.pop() if len(without) == 1 else alike.rstrip("-_./")
    return shared or "all seeds"


def summary(
    scenarios: Mapping[str, Mapping[str, Any]], results: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, Any]:
    """What the runs of a sweep say of each variant, by its name: result.json's `summary`. Metrics are those
    of the last round of each run that is done.

    Args:
        scenarios: by the name of its run, with every default.
        results: result.json's objects by run; None for one that has none.
    """
    return {
        name: {
            "runs": runs,
            "seeds": [scenarios[run]["seed"] for run in runs],
            "done": sum(is_done(results[run]) for run in runs),
            "metrics": {
                key: one.as_json() for key, one in estimates([_final(results[run]) for run in runs]).items()
            },
        }
        for name, runs in replicates(scenarios).items()
    }


def is_done(result: Mapping[str, Any] | None) -> bool:
    """Whether a run has come to its end; `result` is result.json's object."""
    return result is not None and result.get("status") == "done"


def estimates(finals: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """Of every metric, over the runs that have measured it.

    Args:
        finals: the last metrics of each run; of one that is not done, none.
    """
    keys = dict.fromkeys(key for final in finals for key in final if key != "round")
    known = ((key, estimate([final.get(key) for final in finals])) for key in keys)
    return {key: one for key, one in known if one is not None}


def _final(result: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return (result or {}).get("final") or {} if is_done(result) else {}
