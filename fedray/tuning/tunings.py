"""The tuning that a scenario names."""

from collections.abc import Sequence

from fedray.scenario.kinds import implementation
from fedray.scenario.tuning_section import TuningSection
from fedray.tuning.tuning import Tuning


def tuning(section: TuningSection, seed: int, frozen: Sequence[str] = ()) -> Tuning:
    """The tuning of a section (see Tuning)."""
    made: Tuning = implementation(section)(section, seed, frozen)
    return made
