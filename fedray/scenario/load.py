"""Reads a scenario, and says what is wrong with it: every error at once, each with its file and line."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from fedray.errors import printable
from fedray.scenario.base import MOST_NAME, Refused
from fedray.scenario.explain import Loc, ScenarioError, explained
from fedray.scenario.kinds import user_paths
from fedray.scenario.network import DIRECTIONS
from fedray.scenario.scenario import Scenario
from fedray.scenario.sweep_runs import Change, sweep_problems, sweep_runs
from fedray.scenario.tree import (
    Mark,
    apply,
    changes,
    copied,
    mark_of,
    parse_sections,
    plain,
    put,
    read,
    text_of,
)

RUN_FOLDERS = ((".prepared",), ("scenario.yaml", "scenario.resolved.yaml"))  # by files that they hold


@dataclass(frozen=True, repr=False)
class Loaded:
    """A scenario with the text it came from."""

    scenario: Scenario
    file: Path
    text: str
    tree: Any
    settings: tuple[str, ...] = ()
    code: tuple[Path, ...] | None = None  # where a user's own kinds may lie; None: beside the file
    mapping: bool = False  # from Python: its text is in no file, so that errors name no line

    @property
    def code_folders(self) -> list[Path]:
        """Where a user's own kinds are looked for: beside the scenario, and where FEDRAY_CODE says."""
        named = os.environ.get("FEDRAY_CODE", "").split(os.pathsep)
        beside = code_beside(self.file) if self.code is None else list(self.code)
        return [folder.resolve() for folder in [*beside, *(Path(name) for name in named if name)]]

    def __repr__(self) -> str:
        return f"<scenario {self.scenario.name} from {'a mapping' if self.mapping else self.file}>"

    @property
    def folder(self) -> Path:
        """Where relative paths start."""
        return self.file.parent

    def error(self, refused: Iterable[Refused]) -> ScenarioError:
        """What rooms refused, as lines of this file."""
        lines = ((tuple(r.key.split(".")), f"got {r.got}, expected {r.expected}") for r in refused)
        return ScenarioError([_line(self, *one) for one in lines])

    def place(self, line: int) -> str:
        """What an error on this line of the text begins with."""
        return "" if self.mapping else f"{self.file}:{line}: "

    @cached_property
    def variants(self) -> dict[str, Loaded]:
        """The scenarios of a sweep by name, with the lines they have in this file; none without a sweep.

        Raises:
            ScenarioError: with every problem of every variant.
        """
        section = self.scenario.sweep
        if section is None:
            return {}
        tree = self.tree["sweep"]
        first = self.scenario.seed
        if wrong := [
            _line(self, ("sweep", *loc), fault) for loc, fault in sweep_problems(section, tree, first)
        ]:
            raise ScenarioError(wrong)
        result: dict[str, Loaded] = {}
        faults: dict[str, list[str]] = {}  # the runs that have each
        more = 0
        for run in sweep_runs(section, tree, first):
            line = mark_of(tree.get("variants"), run.name)
            try:
                result[run.name] = self._changed(run.name, run.changes, line)
            except ScenarioError as e:
                more += e.more
                for fault in e.problems:
                    shown = f"{fault} (in sweep.variants.{run.name})" if section.lists_runs else fault
                    faults.setdefault(shown, []).append(run.name)
        if faults:
            raise ScenarioError([_of_runs(fault, *runs) for fault, runs in faults.items()], more)
        return result

    def _changed(self, name: str, changes: Sequence[Change], line: Mark | None) -> Loaded:
        """One of the sweep's runs; `line` is where the text begins to speak of it."""
        tree = copied(self.tree)
        del tree["sweep"]
        tree["name"] = f"{self.scenario.name}-{name}"[:MOST_NAME]
        faults: list[str] = []
        for change in changes:
            mark = change.mark or line or (0, 0)
            wrong = put(tree, change.key, copied(change.value), mark)
            faults += [f"{self.place(mark[0] + 1)}{change.key}: {fault}" for fault in wrong]
        return _validate(replace(self, tree=tree), faults)

    def resolved(self) -> str:
        """The scenario with every default and absolute paths, as YAML."""
        tree = self.absolute()
        if self.scenario.sweep is not None:
            runs = {name: variant.absolute() for name, variant in self.variants.items()}
            tree["sweep"] |= {
                "variants": {name: self._from(tree, runs[name]) for name in runs},
                "seeds": None,
            }
            del tree["sweep"]["grid"]
        out = io.StringIO()
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
        yaml.dump(tree, out)
        return out.getvalue()

    def _from(self, tree: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
        """The keys by which one of the sweep's runs differs from the scenario: whole sections, which are read
        and written alike again; of the many runs of a grid as little as says it."""
        assert self.scenario.sweep is not None
        before = {key: value for key, value in tree.items() if key in run and key not in ("name", "sweep")}
        if not self.scenario.sweep.grid:
            return {key: run[key] for key, value in before.items() if run[key] != value}
        return dict(changes(before, {key: run[key] for key in before}))

    def absolute(self) -> dict[str, Any]:
        """The scenario's values, with every default and absolute paths."""
        tree = self.scenario.model_dump(mode="json")
        sites = (tree["data"].get("sites") or {}).values()
        judged = [tree["evaluation"]["reference"], tree["evaluation"]["quality"], tree["augmentation"]]
        for section in (
            tree["data"],
            *sites,
            *filter(None, judged),
            *(tree["network"][direction] for direction in DIRECTIONS),
            (tree["network"]["cell"] or {}).get("placement", {}),
        ):
            for key in ("path", "test", "judge"):
                if isinstance(paths := section.get(key), list):  # of traces
                    section[key] = [self._found(path) for path in paths]
                elif paths:
                    section[key] = self._found(paths)
        folders = (
            (tree["model"], "base"),
            (tree["augmentation"] or {}, "generator"),
            (tree["ledger"] or {}, "keys"),
            (tree["evaluation"]["lm_eval"] or {}, "include"),
        )
        for section, key in folders:
            if section.get(key) and (self.folder / section[key]).is_dir():
                section[key] = str((self.folder / section[key]).resolve())
        if template := tree["model"].get("chat_template"):
            tree["model"]["chat_template"] = self._found(template)
        for dotted_key, path in user_paths(self.scenario):
            put(tree, dotted_key, self._found(path), None)
        return tree

    def _found(self, path: str) -> str:
        return path if path.startswith("shipped:") else str((self.folder / path).resolve())


def _of_runs(fault: str, first: str, *others: str) -> str:
    """A fault of some of a sweep's runs, with the name of the first, where the fault does not say it."""
    if f"(in sweep.variants.{first})" in fault:
        return fault
    more = f" and {len(others):,} other{'s' * (len(others) > 1)}" if others else ""
    return f"{fault} (in the run {first}{more})"


def code_beside(file: Path) -> list[Path]:
    """Where a user's own kinds may lie beside a file with a scenario: in its folder; or in the current one,
    where that is a run folder."""
    return [folder for folder in (file.parent.resolve(), Path.cwd()) if not in_run_folder(folder)][:1]


def in_run_folder(folder: Path) -> bool:
    """Whether a folder is a run's, or in one. That may be a stranger's: nothing in it is imported."""
    places = (folder, *folder.parents)
    return any(all((place / name).exists() for name in names) for place in places for names in RUN_FOLDERS)


def load(
    file: Path,
    settings: Sequence[str] = (),
    seed: int | None = None,
    code: tuple[Path, ...] | None = None,
) -> Loaded:
    """Text, sections and combinations of a scenario.

    Args:
        file: the scenario's.
        settings: `--set` arguments, `a.b=v` with v in YAML.
        seed: in place of the scenario's own.
        code: where a user's own kinds are looked for; None: beside the file.

    Raises:
        ScenarioError: with every problem found.
    """
    return load_text(text_of(file), file, settings, seed, code)


def load_text(
    text: str,
    file: Path,
    settings: Sequence[str] = (),
    seed: int | None = None,
    code: tuple[Path, ...] | None = None,
    mapping: bool = False,
) -> Loaded:
    """As `load`, of a text that need not be on the disk.

    Args:
        text: the scenario, in YAML.
        file: what errors call it; relative paths start at its folder.
        settings: `a.b=v` with v in YAML.
        seed: in place of the scenario's own.
        code: where a user's own kinds are looked for; None: beside the file.
        mapping: whether it is a mapping from Python, whose errors name neither file nor line.

    Raises:
        ScenarioError: with every problem found.
    """
    tree = parse_sections(text, file)
    problems: list[str] = []
    for setting in settings:
        problems += apply(tree, setting)
    if seed is not None:
        tree["seed"] = seed
    raw = Loaded(None, file, text, tree, tuple(settings), code, mapping)  # type: ignore[arg-type]
    loaded = _validate(raw, problems)
    _ = loaded.variants  # raises where one is not whole
    return loaded


def load_network(file: Path, scenario: dict[str, Any], code: Sequence[Path] = ()) -> Loaded:
    """A finished run's scenario with the network of another scenario's file, or of a file of that section
    alone. What the other sections ask of a network was settled when the run ran.

    Args:
        file: with the network.
        scenario: the run's, resolved.
        code: where the run's own kinds are looked for, beside the file.

    Raises:
        ScenarioError: with every problem found.
    """
    text, tree = read(file)
    whole = scenario | {"network": tree.get("network", tree)}
    raw = Loaded(None, file, text, whole, (), (*code_beside(file), *code))  # type: ignore[arg-type]
    loaded = _validate(raw, [], together=False)
    refused = [r for r in loaded.scenario.combinations() if r.key.startswith("network.")]
    if refused:
        raise loaded.error(refused)
    return loaded


def _validate(raw: Loaded, problems: list[str], together: bool = True) -> Loaded:
    """`raw` with the scenario its tree says, or every problem of it behind those found before."""
    values = plain(raw.tree)
    try:
        scenario = Scenario.model_validate(values, context={"folders": raw.code_folders})
    except ValidationError as e:
        result, more = explained(e.errors(include_url=False), values, Scenario)
        problems += [_line(raw, loc, message) for loc, message in result]
        raise ScenarioError(problems, more) from None
    if problems:
        raise ScenarioError(problems)
    loaded = replace(raw, scenario=scenario)
    if together and (refused := list(scenario.combinations())):
        raise loaded.error(refused)
    return loaded


def _line(loaded: Loaded, loc: Loc, message: str) -> str:
    """`FILE:LINE: a.b: message`; what `--set` changed has no line, so the setting stands in its place."""
    key = ".".join(str(p) for p in loc)
    for setting in loaded.settings:
        path = setting.partition("=")[0].strip()
        if key == path or key.startswith(path + ".") or path.startswith(key + "."):
            return printable(f"--set {setting}: {key}: {message}")
    line = 1
    at = loaded.tree
    for part in loc:
        mark = mark_of(at, part)
        line = mark[0] + 1 if mark else line
        try:
            at = at[part]
        except (KeyError, IndexError, TypeError):
            break
    return printable(f"{loaded.place(line)}{key + ': ' if key else ''}{message}")
