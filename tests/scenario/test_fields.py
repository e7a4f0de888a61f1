"""What an editor and docs/scenario.md show of every field."""

import re
from typing import Annotated, Literal, get_args, get_origin

from pydantic import BaseModel

from fedray.scenario import Scenario
from fedray.scenario.base import FilePath, Section, file_paths
from fedray.scenario.links import TraceLink


def sections(root):
    """Every section class that a scenario may hold, the root first."""
    known = [root]
    for section in known:
        for field in section.model_fields.values():
            known += [s for s in parts(field.annotation) if is_section(s) and s not in known]
    return known


def parts(annotation):
    """The classes and Literals that an annotation is made of."""
    if get_origin(annotation) is Literal or not get_args(annotation):
        return [annotation]
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return [part for one in inner for part in parts(one)]


def is_section(kind):
    return isinstance(kind, type) and issubclass(kind, BaseModel)


FIELDS = {
    f"{section.__name__}.{name}": field
    for section in sections(Scenario)
    for name, field in section.model_fields.items()
}


def choices(field):
    """What a field's Literals allow, as a user writes it."""
    return [str(c) for part in parts(field.annotation) if get_origin(part) is Literal for c in get_args(part)]


def test_the_walk_over_the_sections_reaches_the_innermost_ones():
    names = {section.__name__ for section in sections(Scenario)}
    assert {"Scenario", "TopK", "Neighbours", "Share", "Site", "Bpe", "Failures", "HeldOut"} <= names


def test_every_section_says_what_it_is():
    assert [section.__name__ for section in sections(Scenario) if not section.__doc__] == []


def test_every_field_has_a_description_that_ends_with_a_full_stop():
    said = {name: field.description or "" for name, field in FIELDS.items()}
    assert {name: text for name, text in said.items() if not re.fullmatch(r"\S.*[.]", text)} == {}


def test_a_description_names_every_choice_of_its_field():
    for name, field in FIELDS.items():
        for choice in choices(field):
            assert re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", field.description), f"{name}: {choice}"


def test_a_description_says_what_it_means_to_give_no_value():
    optional = {name: f for name, f in FIELDS.items() if not f.is_required() and f.default is None}
    assert [name for name, field in optional.items() if "None:" not in field.description] == []


def test_the_paths_of_a_section_are_those_of_its_fields_of_file_path():
    class Own(Section):
        table: FilePath
        more: list[FilePath] = []
        other: FilePath | None = None
        name: str = "no file"

    assert list(file_paths(Own(table="a.csv"))) == [("table", "a.csv")]
    assert list(file_paths(Own(table="a", more=["b", "c"], other="d"))) == [
        ("table", "a"),
        ("more.0", "b"),
        ("more.1", "c"),
        ("other", "d"),
    ]
    assert list(file_paths(TraceLink(kind="trace", path="up.trace"))) == [("path", "up.trace")]
    assert list(file_paths(TraceLink(kind="trace", path=["up", "down"]))) == [
        ("path.0", "up"),
        ("path.1", "down"),
    ]
