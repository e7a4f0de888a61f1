"""What of a scenario may be told to anybody: its numbers, and words that fedray itself has for choices. What
a user wrote freely (paths, prompts, names of sites, captions) may be a client's, and is left out."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from fedray.scenario.base import Section
from fedray.scenario.scenario import Scenario

# Sections that say how a run learns and what it costs.
TOLD = [
    "topology",
    "population",
    "data",
    "model",
    "tuning",
    "training",
    "aggregation",
    "personal",
    "privacy",
    "secure_aggregation",
    "augmentation",
    "adversary",
    "incentive",
    "network",
]
MOST_NUMBERS = 16  # of a list: a longer one may be data, such as places


def settings(scenario: Scenario) -> dict[str, Any]:
    """Of each section in TOLD that a scenario has, its keys with what may be told of them."""
    sections = {name: getattr(scenario, name) for name in TOLD}
    return {
        name: told for name, section in sections.items() if section is not None and (told := _of(section))
    }


def _of(section: Section) -> dict[str, Any]:
    fields = type(section).model_fields
    values = {}
    for name, field in fields.items():
        words = set(_literals((field.annotation, *field.metadata)))
        value = _told(getattr(section, name), words, name == "kind")
        if value is not None:
            values[name] = value
    return values


def _told(value: Any, words: set[Any], is_kind: bool) -> Any:
    """What may be told of a value; None for nothing.

    Args:
        value: of a section's key.
        words: that fedray has for this key.
        is_kind: whether the key chooses a class of code.
    """
    if isinstance(value, Section):
        return _of(value) or None
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if is_kind or value in words else None
    if isinstance(value, list | tuple):
        numbers = all(isinstance(one, int | float) for one in value)
        told = (
            [_told(one, words, False) for one in value] if not numbers or len(value) <= MOST_NUMBERS else []
        )
        return [one for one in told if one is not None and not isinstance(one, list)] or None
    return None  # mappings, whose keys may be names


def _literals(annotations: tuple[Any, ...]) -> Iterator[Any]:
    """The words that an annotation lists, in its parts."""
    for one in annotations:
        if get_origin(one) is Literal:
            yield from get_args(one)
        else:
            yield from _literals(get_args(one))
