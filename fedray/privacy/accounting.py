"""Epsilon of a run, and the noise that keeps to one, by dp-accounting. Nothing here needs torch."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

from fedray.lazy import resolve
from fedray.privacy.events import REPLACE, Publication
from fedray.scenario.base import Refused

STEP = 1e-3  # a solved noise multiplier is a multiple of it, the least that keeps to epsilon
LARGEST_MULTIPLIER = 1e5
LARGEST_PLD = 100.0  # an epsilon beyond which PLD takes gigabytes, and no epsilon protects anything
Accountant = Literal["rdp", "pld"]


def installed() -> bool:
    """Whether epsilon can be computed here."""
    return find_spec("dp_accounting") is not None


def publication(scenario: Any, samples: Sequence[int], rounds: int) -> Publication | None:
    """What a private scenario publishes in so many rounds; None where no accountant knows its mechanism.

    Args:
        scenario: with `privacy`, whose noise is known.
        samples: that each client has.
        rounds: of the run so far.
    """
    accounting = scenario.privacy.accounting
    if accounting is None:
        return None
    result: Publication = resolve(accounting)(scenario, samples, rounds)
    return result


def epsilon(
    scenario: Any, samples: Sequence[int], rounds: int, accountant: Accountant = "rdp"
) -> float | None:
    """The privacy loss of so many rounds at `privacy.delta`; None where it is not known: dp-accounting is not
    installed, no accountant knows the mechanism, or this one does not know its event.

    Args:
        scenario: with `privacy`, whose noise is known.
        samples: that each client has.
        rounds: of the run so far.
        accountant: rdp: Renyi differential privacy (Mironov 2017), fast. pld: privacy loss distributions
            (Koskela et al. 2020), tight, seconds.
    """
    if not installed() or scenario.privacy.accounting is None:
        return None
    if rounds == 0:
        return 0.0
    published = publication(scenario, samples, rounds)
    assert published is not None
    if accountant == "pld" and published.relation == REPLACE:
        return None  # PLD knows no draw of fixed size
    import dp_accounting as dp
    from dp_accounting import pld, rdp

    relations = dp.NeighboringRelation
    relation = relations.REPLACE_ONE if published.relation == REPLACE else relations.ADD_OR_REMOVE_ONE
    accountants = {"rdp": rdp.RdpAccountant, "pld": pld.PLDAccountant}
    with quiet():
        spent = accountants[accountant](neighboring_relation=relation).compose(published.event)
        result = float(spent.get_epsilon(scenario.privacy.delta))
    return result if math.isfinite(result) else None


def with_noise(scenario: Any, samples: Sequence[int]) -> Any:
    """The same with the noise settled: the least whole number of thousandths with which the whole run keeps
    to `privacy.epsilon`.

    Args:
        scenario: as it was loaded.
        samples: that each client has.

    Raises:
        Refused: where that cannot be computed, or no noise would do.
    """
    privacy = scenario.privacy
    if privacy is None or privacy.noise_multiplier is not None:
        return scenario
    refuse_unknown(scenario)
    rounds = scenario.training.rounds

    def noisy(steps: int) -> Any:
        changed = privacy.model_copy(update={"noise_multiplier": round(steps * STEP, 3)})
        return scenario.model_copy(update={"privacy": changed})

    def keeps(steps: int) -> bool:
        spent = epsilon(noisy(steps), samples, rounds)
        return spent is not None and spent <= privacy.epsilon

    low = 0  # too little
    high = round(1 / STEP)
    while not keeps(high):
        low = high
        high *= 2
        if high * STEP > LARGEST_MULTIPLIER:
            expected = "a larger one: no noise of any use would keep to it"
            raise Refused("privacy.epsilon", privacy.epsilon, expected)
    while high - low > 1:
        middle = (low + high) // 2
        if keeps(middle):
            high = middle
        else:
            low = middle
    settled = noisy(high)
    for refused in settled.privacy.noise_conflicts(settled):
        raise refused.within("privacy")
    return settled


def refuse_unknown(scenario: Any) -> None:
    """Raises Refused for an epsilon that nobody here can compute."""
    privacy = scenario.privacy
    if privacy is None or privacy.epsilon is None:
        return
    if privacy.accounting is None:
        expected = "noise_multiplier: no accountant knows this mechanism"
        raise Refused("privacy.epsilon", f"{privacy.epsilon:g} for {privacy.kind}", expected)
    if not installed():
        expected = "pip install 'fedray[privacy]', or noise_multiplier"
        raise Refused("privacy.epsilon", f"{privacy.epsilon:g} without dp-accounting", expected)


def refuse_other_noise(scenario: Any, before: dict[str, Any] | None) -> None:
    """Raises Refused for a run that goes on with other noise than it began with: what its first rounds have
    cost, nobody would count.

    Args:
        scenario: whose noise is settled.
        before: its privacy.json.
    """
    privacy = scenario.privacy
    if privacy is None or before is None or before["noise_multiplier"] == privacy.noise_multiplier:
        return
    got = f"{privacy.noise_multiplier:g} for {scenario.training.rounds} rounds, where the run began with"
    got += f" {before['noise_multiplier']:g}"
    expected = "as many rounds as epsilon was asked for, or privacy.noise_multiplier instead of it"
    raise Refused("privacy.noise_multiplier", got, expected)


def facts(scenario: Any, samples: Sequence[int], pld: bool = False) -> dict[str, Any]:
    """What a plan and a report say of the privacy of a whole run.

    Args:
        scenario: with `privacy`, whose noise is known.
        samples: that each client has.
        pld: compute the tight epsilon too, which takes seconds, where it is at most LARGEST_PLD.
    """
    privacy = scenario.privacy
    rounds = scenario.training.rounds
    published = publication(scenario, samples, rounds) if installed() else None
    by_rdp = epsilon(scenario, samples, rounds)
    pld = pld and by_rdp is not None and by_rdp <= LARGEST_PLD
    return {
        "kind": privacy.kind,
        "unit": privacy.unit(scenario.topology),
        "neighbours": published.relation if published is not None else None,
        "clip_norm": privacy.clip_norm,
        "noise_multiplier": privacy.noise_multiplier,
        "noise": privacy.noise,
        "delta": privacy.delta,
        "epsilon": by_rdp,
        "epsilon_pld": epsilon(scenario, samples, rounds, "pld") if pld else None,
    }


@contextmanager
def quiet() -> Iterator[None]:
    """dp-accounting warns of every order of Renyi's divergence that it leaves out, which costs nothing but
    tightness."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
