"""The kinds of tuning."""

from collections.abc import Sequence

from fedray.scenario.tuning import Tuning as Section
from fedray.tuning.full import Full, Partial
from fedray.tuning.lora import LoraTuning
from fedray.tuning.tuning import Tuning

TUNINGS: dict[str, type[Tuning]] = {"full": Full, "partial": Partial, "lora": LoraTuning}


def tuning(section: Section, seed: int, frozen: Sequence[str] = ()) -> Tuning:
    """The tuning that a scenario names."""
    return TUNINGS[section.kind](section, seed, frozen)
