"""Reads a scenario, and says what is wrong with it: every error at once, each with its file and line."""

from __future__ import annotations

import copy
import difflib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from fedray.errors import UserError, printable
from fedray.scenario.base import NAME_PATTERN, Refused
from fedray.scenario.data import FOLDER_PATTERN
from fedray.scenario.network import DIRECTIONS
from fedray.scenario.scenario import Scenario

Loc = tuple[str | int, ...]
NAMES = {  # what a pattern means, in words
    NAME_PATTERN: "a name of letters, digits, dots, dashes and underscores, at most 64",
    FOLDER_PATTERN: "the name of one folder",
}


class ScenarioError(UserError):
    """One line a problem, `FILE:LINE: section.key: got ..., expected ...`."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Loaded:
    """A scenario with the text it came from."""

    scenario: Scenario
    file: Path
    text: str
    tree: Any
    settings: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where relative paths start."""
        return self.file.parent

    def error(self, refused: Iterable[Refused]) -> ScenarioError:
        """What rooms refused, as lines of this file."""
        told = ((tuple(r.key.split(".")), f"got {r.got}, expected {r.expected}") for r in refused)
        return ScenarioError([_line(self.file, self.tree, self.settings, *one) for one in told])

    @cached_property
    def variants(self) -> dict[str, Loaded]:
        """The scenarios of a sweep by name, with the lines they have in this file; none without a sweep.

        Raises:
            ScenarioError: with every problem of every variant.
        """
        found: dict[str, Loaded] = {}
        problems: list[str] = []
        variants = self.tree["sweep"]["variants"] if self.scenario.sweep else {}
        for name, changes in variants.items():
            tree = copy.deepcopy(self.tree)
            del tree["sweep"]
            tree["name"] = f"{self.scenario.name}-{name}"[:64]
            line = _mark(variants, name) or (0, 0)
            faults: list[str] = []
            for key, value in changes.items():
                mark = _mark(changes, key) or line
                faults += [f"{self.file}:{mark[0] + 1}: {key}: {f}" for f in _put(tree, str(key), copy.deepcopy(value), mark)]
            try:
                found[str(name)] = _validate(replace(self, tree=tree), faults)
            except ScenarioError as e:
                problems += [f"{p} (in sweep.variants.{name})" for p in e.problems]
        if problems:
            raise ScenarioError(problems)
        return found

    def resolved(self) -> str:
        """The scenario with every default and absolute paths, as YAML."""
        tree = self._absolute()
        for name, variant in self.variants.items():
            theirs = variant._absolute()
            tree["sweep"]["variants"][name] = {k: v for k, v in theirs.items() if k not in ("name", "sweep") and v != tree[k]}
        out = io.StringIO()
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
        yaml.dump(tree, out)
        return out.getvalue()

    def _absolute(self) -> dict[str, Any]:
        tree = self.scenario.model_dump(mode="json")
        sites = (tree["data"].get("sites") or {}).values()
        judged = [tree["evaluation"]["reference"], tree["evaluation"]["quality"], tree["augmentation"]]
        for section in (tree["data"], *sites, *filter(None, judged), *(tree["network"][direction] for direction in DIRECTIONS)):
            for key in ("path", "judge"):
                if isinstance(paths := section.get(key), list):  # of traces
                    section[key] = [self._found(path) for path in paths]
                elif paths:
                    section[key] = self._found(paths)
        for section, key in ((tree["model"], "base"), (tree["augmentation"] or {}, "generator")):
            if key in section and (self.folder / section[key]).is_dir():
                section[key] = str((self.folder / section[key]).resolve())
        return tree

    def _found(self, path: str) -> str:
        return path if path.startswith("shipped:") else str((self.folder / path).resolve())


def load(file: Path, settings: Sequence[str] = (), seed: int | None = None) -> Loaded:
    """Text, sections and combinations of a scenario. `settings` are `--set` arguments, `a.b=v` with v in YAML.

    Raises:
        ScenarioError: with every problem found.
    """
    text, tree = _read(file)
    problems: list[str] = []
    for setting in settings:
        problems += _apply(tree, setting)
    if seed is not None:
        tree["seed"] = seed
    loaded = _validate(Loaded(None, file, text, tree, tuple(settings)), problems)  # type: ignore[arg-type]
    _ = loaded.variants  # raises where one is not whole
    return loaded


def load_network(file: Path, scenario: dict[str, Any]) -> Loaded:
    """A finished run's scenario with the network of another scenario's file, or of a file of that section alone. What the
    other sections ask of a network was settled when the run ran.

    Raises:
        ScenarioError: with every problem found.
    """
    text, tree = _read(file)
    loaded = _validate(Loaded(None, file, text, scenario | {"network": tree.get("network", tree)}), [], together=False)  # type: ignore[arg-type]
    if refused := list(loaded.scenario.network.refused(loaded.scenario.population.clients)):
        raise loaded.error(refused)
    return loaded


def _read(file: Path) -> tuple[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ScenarioError([f"{file}: got {_reason(e)}, expected a scenario file"]) from None
    tree = _parse(text, str(file))
    if not isinstance(tree, dict):
        raise ScenarioError([f"{file}:1: got {_kind(tree)}, expected sections (name, topology, population, ...)"])
    return text, tree


def _validate(raw: Loaded, problems: list[str], together: bool = True) -> Loaded:
    """`raw` with the scenario its tree says, or every problem of it behind those found before."""
    plain = _plain(raw.tree)
    try:
        scenario = Scenario.model_validate(plain)
    except ValidationError as e:
        found: dict[tuple[Loc, str], list[str]] = {}
        for error in e.errors(include_url=False):
            loc, got, expected = _explain(error, plain)
            found.setdefault((loc, got), []).append(expected)
        for (loc, got), options in found.items():  # a union complains once a member
            message = f"got {got}, expected {' or '.join(dict.fromkeys(options))}"
            problems.append(_line(raw.file, raw.tree, raw.settings, loc, message))
        raise ScenarioError(problems) from None
    if problems:
        raise ScenarioError(problems)
    loaded = replace(raw, scenario=scenario)
    if together and (refused := list(scenario.combinations())):
        raise loaded.error(refused)
    return loaded


def _parse(text: str, where: str) -> Any:
    yaml = YAML(typ="rt", pure=True)
    try:
        return yaml.load(text)
    except MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line = mark.line + 1 if mark else 1
        problem = (e.problem or e.context or "bad YAML").split("\n")[0].strip()
        raise ScenarioError([f"{where}:{line}: got {problem}, expected YAML 1.2"]) from None
    except (YAMLError, ValueError, TypeError, AttributeError, LookupError, AssertionError, RecursionError) as e:  # all of them ruamel's
        raise ScenarioError([f"{where}:1: got {_reason(e)}, expected YAML 1.2"]) from None


def _apply(tree: Any, setting: str) -> list[str]:
    """Puts one `a.b=v` into the tree; whether the key exists is the model's to say."""
    path, equals, value = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        return [f"--set {setting}: got {setting!r}, expected section.key=value"]
    try:
        new = _parse(value, f"--set {path}")
    except ScenarioError as e:
        return e.problems
    return [f"--set {path}: {fault}" for fault in _put(tree, path.strip(), new, None)]


def _put(tree: Any, path: str, value: Any, mark: tuple[int, int] | None) -> list[str]:
    """Puts a value at `a.b`, remembering the line it comes from; gives what is wrong with the path."""
    keys = path.split(".")
    at = tree
    for i, key in enumerate(keys):
        last = i == len(keys) - 1
        if isinstance(at, list):
            if not key.isdigit() or int(key) >= len(at):
                return [f"got {key!r}, expected an index below {len(at)}"]
            place: Any = int(key)
        elif isinstance(at, dict):
            place = key
            if not last and not isinstance(at.get(key), (dict, list)):
                at[key] = CommentedMap()
        else:
            return [f"got a key under {'.'.join(keys[:i])}, expected a section there"]
        if last:
            at[place] = value
        lines: Any = getattr(at, "lc", None)
        if mark and lines is not None:
            lines.add_kv_line_col(place, [*mark, *mark])
        at = at[place]
    return []


def _mark(tree: Any, key: Any) -> tuple[int, int] | None:
    """Line and column of a key, from 0; none where the text does not have it."""
    try:
        marks = tree.lc
        marked: tuple[int, int] = marks.key(key) if isinstance(tree, dict) else marks.item(key)
        return marked
    except (AttributeError, KeyError, IndexError, TypeError):
        return None


def _plain(node: Any) -> Any:
    """The tree without ruamel's types."""
    if isinstance(node, dict):
        return {k if isinstance(k, str) else str(k): _plain(v) for k, v in node.items()}
    if isinstance(node, list):
        return [_plain(v) for v in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _explain(error: Any, plain: Any) -> tuple[Loc, str, str]:
    """Where a pydantic error is in the user's tree, what stood there, and what should."""
    loc = _skip_tags([part for part in error["loc"] if part != "[key]"], plain)
    kind, context = error["type"], error.get("ctx", {})
    got = _kind(error["input"])
    if kind == "extra_forbidden":
        known = _known_keys(loc[:-1], plain)
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.6)
        return loc, "an unknown key", f"{near[0]} (did you mean it?)" if near else "one of " + ", ".join(known)
    if kind == "missing":
        return loc, "nothing", "this key"
    if kind == "union_tag_invalid":
        return (*loc, "kind"), repr(context["tag"]), context["expected_tags"].replace(", ", " or ")
    if kind == "union_tag_not_found":
        return loc, f"{got} without a kind", "a mapping with kind"
    if kind in ("too_short", "too_long"):
        least, most = context.get("min_length"), context.get("max_length")
        return loc, f"{context['actual_length']} of them", f"at least {least}" if most is None else f"at most {most}"
    pattern, section = context.get("pattern"), "a section of keys"
    said = {"literal_error": context.get("expected"), "value_error": str(context.get("error")), "model_type": section}
    said |= {
        "dict_type": section,
        "model_attributes_type": section,
        "string_pattern_mismatch": NAMES.get(pattern, f"text that matches {pattern}"),
    }
    if kind in said:
        return loc, got, said[kind]
    expected = str(error["msg"]).removeprefix("Input should be ").removeprefix("a valid ")
    for theirs, ours in (
        ("greater than or equal to", "at least"),
        ("less than or equal to", "at most"),
        ("greater than", "a number above"),
        ("less than", "a number below"),
    ):
        expected = expected.replace(theirs, ours)
    article = "" if expected.startswith(("a ", "at ", "an ")) else "an " if expected[0] in "aeiou" else "a "
    return loc, got, article + expected


def _skip_tags(loc: Sequence[Any], plain: Any) -> Loc:
    """pydantic's locations name union members and discriminator tags; the user's tree has neither."""
    path: list[str | int] = []
    at = plain
    for i, part in enumerate(loc):
        last = i == len(loc) - 1
        if isinstance(at, dict) and (part in at or last) and not (last and part not in at and str(part) == at.get("kind")):
            path.append(part)
            at = at.get(part)
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            path.append(part)
            at = at[part]
    return tuple(path)


def _known_keys(loc: Loc, plain: Any) -> list[str]:
    """Keys the section at `loc` may have, read from the model."""
    from pydantic import BaseModel

    def members(annotation: Any) -> list[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return [annotation]
        return [m for a in get_args(annotation) for m in members(a)]

    options: list[type[BaseModel]] = [Scenario]
    at = plain
    for part in loc:
        if isinstance(at, dict):
            at = at.get(part)
            options = [m for o in options if part in o.model_fields for m in members(o.model_fields[str(part)].annotation)]
        else:
            at = at[int(part)] if isinstance(at, list) else None
        if len(options) > 1 and isinstance(at, dict):  # the union's member that `kind` names
            options = [o for o in options if at.get("kind") in get_args(o.model_fields["kind"].annotation)] or options
    return [k for o in options for k in o.model_fields]


def _line(file: Path, tree: Any, settings: Sequence[str], loc: Loc, message: str) -> str:
    """`FILE:LINE: a.b: message`; what `--set` changed has no line, so the setting stands in its place."""
    key = ".".join(str(p) for p in loc)
    for setting in settings:
        path = setting.partition("=")[0].strip()
        if key == path or key.startswith(path + ".") or path.startswith(key + "."):
            return printable(f"--set {setting}: {key}: {message}")
    line, at = 1, tree
    for part in loc:
        mark = _mark(at, part)
        line = mark[0] + 1 if mark else line
        try:
            at = at[part]
        except (KeyError, IndexError, TypeError):
            break
    return printable(f"{file}:{line}: {key + ': ' if key else ''}{message}")


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _reason(e: Exception) -> str:
    return getattr(e, "strerror", None) or str(e).split("\n")[0]
