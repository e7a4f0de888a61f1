"""What is wrong with a scenario, in words: pydantic's errors as `key: got ..., expected ...`, and how many
are shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from fedray.errors import UserError, shortened
from fedray.scenario.base import NAME_PATTERN
from fedray.scenario.kinds import user_section
from fedray.scenario.sites import FOLDER_PATTERN

Loc = tuple[str | int, ...]
MOST_PROBLEMS = 50  # that are shown of a scenario
NAMES = {  # what a pattern means, in words
    NAME_PATTERN: "a name of letters, digits, dots, dashes and underscores, at most 64",
    FOLDER_PATTERN: "the name of one folder",
}
# kinds that had another name before: what they are called, and since which version
RENAMED = {"quantise": ("quantize", "0.2")}
COMPARED = (
    ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"),
    ("greater than", "a number above"),
    ("less than", "a number below"),
)


class ScenarioError(UserError):
    """One line a problem, `FILE:LINE: section.key: got ..., expected ...`; MOST_PROBLEMS of them, and how
    many `more`."""

    def __init__(self, problems: Sequence[str], more: int = 0) -> None:
        self.problems = list(problems[:MOST_PROBLEMS])
        self.more = more + len(problems) - len(self.problems)
        super().__init__("\n".join(self.lines))

    @property
    def lines(self) -> list[str]:
        """What a person is shown."""
        return self.problems + ([f"and {self.more} more"] if self.more else [])

    def __reduce__(self):  # exceptions with arguments of their own do not pickle without this
        return ScenarioError, (self.problems, self.more)


def explained(errors: Sequence[Any], tree: Any, root: type[BaseModel]) -> tuple[list[tuple[Loc, str]], int]:
    """pydantic's errors on a plain `tree` as places and messages, MOST_PROBLEMS of them, and at how many more
    places there are some. `root` is the model that the tree was to be."""
    result: dict[tuple[Loc, str], list[str]] = {}
    more: set[Loc] = set()
    for error in errors:
        if _says_no_word(error, errors):
            continue
        if len(result) >= MOST_PROBLEMS and (place := _skip_tags(error["loc"], tree)) not in {
            loc for loc, _ in result
        }:
            more.add(place)
            continue
        loc, got, expected = _explain(error, tree, root)
        result.setdefault((loc, got), []).append(expected)  # a union complains once a member
    lines = [
        (loc, f"got {got}, expected {' or '.join(dict.fromkeys(options))}")
        for (loc, got), options in result.items()
    ]
    return lines, len(more)


def _says_no_word(error: Any, errors: Sequence[Any]) -> bool:
    """Whether an error only says that a section is none of some words, where a section may stand in their
    place: what is wrong with it another error says."""
    if error["type"] != "literal_error" or not isinstance(error["input"], dict):
        return False
    place = error["loc"][:-1]
    return any(other is not error and other["loc"][: len(place)] == place for other in errors)


def _explain(error: Any, tree: Any, root: type[BaseModel]) -> tuple[Loc, str, str]:
    """Where a pydantic error is in the user's tree, what stood there, and what should."""
    loc = _skip_tags(error["loc"], tree)
    kind = error["type"]
    context = error.get("ctx", {})
    got = kind_of(error["input"])
    if kind == "extra_forbidden":
        known = _known_keys(loc[:-1], tree, root)
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.6)
        return (
            loc,
            "an unknown key",
            f"{near[0]} (did you mean it?)" if near else "one of " + ", ".join(known),
        )
    if kind == "missing":
        return loc, "nothing", "this key"
    if kind == "union_tag_invalid":
        return (*loc, "kind"), *_unknown_kind(error["input"]["kind"], context["expected_tags"])
    if kind == "no_kind":
        named = isinstance(error["input"], dict)
        return (*loc, "kind") if named else loc, context["got"], context["expected"]
    if kind == "union_tag_not_found":
        return _without_kind(loc, error["input"])
    if kind in ("too_short", "too_long"):
        least = context.get("min_length")
        most = context.get("max_length")
        return (
            loc,
            f"{len(error['input'])} of them",
            f"at least {least}" if most is None else f"at most {most}",
        )
    pattern = context.get("pattern")
    section = "a section of keys"
    said = {
        "literal_error": context.get("expected"),
        "value_error": str(context.get("error")),
        "model_type": section,
    }
    said |= {
        "dict_type": section,
        "model_attributes_type": section,
        "string_pattern_mismatch": NAMES.get(pattern, f"text that matches {pattern}"),
    }
    if kind in said:
        return loc, got, said[kind]
    expected = str(error["msg"]).removeprefix("Input should be ").removeprefix("a valid ")
    for inner, ours in COMPARED:
        expected = expected.replace(inner, ours)
    article = "" if expected.startswith(("a ", "at ", "an ")) else "an " if expected[0] in "aeiou" else "a "
    return loc, got, article + expected


def _unknown_kind(kind: Any, expected: str) -> tuple[str, str]:
    """What a `kind` that is none of those expected is, and what should stand there. `expected` lists them in
    quotation marks."""
    new, since = RENAMED.get(kind, ("", "")) if isinstance(kind, str) else ("", "")
    if new and f"'{new}'" in expected:
        return kind, f"{new} (its name since {since})"
    near = difflib.get_close_matches(str(kind), re.findall("'([^']*)'", expected), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return kind_of(kind), expected.replace(", ", " or ") + hint


def _without_kind(loc: Loc, section: Any) -> tuple[Loc, str, str]:
    """A section whose `kind` is misspelt, empty, or not there."""
    if not isinstance(section, dict):
        return loc, kind_of(section), "a section of keys"
    if "kind" in section:
        return (*loc, "kind"), kind_of(section["kind"]), "the name of one"
    near = {str(key).lower(): key for key in section}
    if alike := difflib.get_close_matches("kind", near, n=1, cutoff=0.6):
        return (*loc, near[alike[0]]), "an unknown key", "kind (did you mean it?)"
    return loc, "a mapping without a kind", "a mapping with kind"


def _skip_tags(loc: Sequence[Any], tree: Any) -> Loc:
    """pydantic's locations name union members and discriminator tags; the user's tree has neither."""
    parts = [part for part in loc if part != "[key]"]
    path: list[str | int] = []
    at = tree
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if (
            isinstance(at, dict)
            and (part in at or last)
            and not (last and part not in at and str(part) == at.get("kind"))
        ):
            path.append(part)
            at = at.get(part)
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            path.append(part)
            at = at[part]
    return tuple(path)


def _known_keys(loc: Loc, tree: Any, root: type[BaseModel]) -> list[str]:
    """Keys the section at `loc` may have, read from the model, through lists and mappings of sections too."""
    kinds: list[Any] = [root]
    at = tree
    for part in loc:
        kinds = [child for kind in kinds for child in _children(kind, part)]
        at = at.get(part) if isinstance(at, dict) else at[int(part)] if isinstance(at, list) else None
        if isinstance(at, dict) and (users := user_section(at.get("kind"))) is not None:
            kinds = [users]
        elif isinstance(at, dict):  # the union's member that `kind` names
            named = [k for k in kinds if at.get("kind") in get_args(_kind_field(k))]
            kinds = named or kinds
    return list(dict.fromkeys(key for kind in kinds if _is_model(kind) for key in kind.model_fields))


def _children(kind: Any, part: str | int) -> list[Any]:
    """What may stand at `part` of a section, a list or a mapping, unions opened."""
    if _is_model(kind):
        return list(_opened(kind.model_fields[str(part)].annotation)) if part in kind.model_fields else []
    return list(_opened(get_args(kind)[-1])) if get_origin(kind) in (list, dict) else []


def _opened(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from _opened(get_args(annotation)[0])
    elif get_origin(annotation) in (None, list, dict):
        yield annotation
    else:  # a union
        for member in get_args(annotation):
            yield from _opened(member)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kind_field(kind: Any) -> Any:
    return kind.model_fields["kind"].annotation if _is_model(kind) and "kind" in kind.model_fields else None


def kind_of(value: Any) -> str:
    """A value as a line of a few words."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return shortened(repr(value))
