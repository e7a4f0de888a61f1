"""A sweep's runs: every variant, with every combination of the grid, under every seed; and what is wrong with
them taken together."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import PurePosixPath
from typing import Any

from fedray.scenario.base import MOST_NAME, NAME_PATTERN
from fedray.scenario.explain import Loc, kind_of
from fedray.scenario.sweep import MOST_RUNS, Sweep
from fedray.scenario.tree import Mark, mark_of, plain

SEED = "seed-{}"  # what a seed is called in a run's name
JOINT = "_"  # between the parts of a run's name
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
# What a sweep's own folder holds, beside its runs.
OF_SWEEP = {"scenario.yaml", "scenario.resolved.yaml", "env.json", "error.json", "result.json", "run.log"}
OF_SWEEP |= {"report.html", "table.csv", "table.tex", "results"}
Problem = tuple[Loc, str]  # where in a sweep, and what is wrong there


@dataclass(frozen=True)
class Change:
    """A key that a run sets, and the place in the text that says so."""

    key: str
    value: Any
    mark: Mark | None


@dataclass(frozen=True)
class SweepRun:
    """One of a sweep's runs: its name, which is its folder's, and its keys in the order in which they are
    set."""

    name: str
    changes: tuple[Change, ...]


def sweep_runs(section: Sweep, tree: Any, seed: int) -> list[SweepRun]:
    """The runs of a sweep that `sweep_problems` finds nothing wrong with.

    Args:
        section: the sweep's.
        tree: of the sweep in the scenario's text, which knows the line of each key.
        seed: the scenario's own.
    """
    variants = [
        (str(name), tuple(_change(changes, key) for key in changes))
        for name, changes in (tree["variants"] if section.variants else {"": {}}).items()
    ]
    grid = tree["grid"] if section.grid else {}
    points = list(product(*(range(len(values)) for values in grid.values())))
    seeds = section.seeds_from(seed)
    given = tree.get("seeds")
    marks = [
        mark_of(given, i) if isinstance(given, list) else mark_of(tree, "seeds") for i in range(len(seeds))
    ]
    chosen = [
        tuple(
            Change(str(key), values[i], mark_of(values, i) or mark_of(grid, key))
            for (key, values), i in zip(grid.items(), point, strict=True)
        )
        for point in points
    ]
    replicates: list[tuple[Change, ...]] = [
        (Change("seed", s, mark),) for s, mark in zip(seeds, marks, strict=True)
    ] or [()]
    names = run_names([name for name, _ in variants], section.grid, seeds)
    return [
        SweepRun(name, (*own, *point, *replicate))
        for name, ((_, own), point, replicate) in zip(
            names, product(variants, chosen, replicates), strict=True
        )
    ]


def _change(changes: Any, key: Any) -> Change:
    return Change(str(key), changes[key], mark_of(changes, key))


def run_names(variants: Sequence[str], grid: dict[str, list[Any]], seeds: Sequence[int]) -> list[str]:
    """What the runs are called, variant by variant, and in each combination by combination, seed by seed:
    `lora_learning_rate-0.01_rank-4_seed-0`. Where that is too long for a name, combinations are numbered.

    Args:
        variants: names; an empty one is not seen.
        grid: values by their dotted keys.
        seeds: none where there is one run a combination.
    """
    endings = [SEED.format(s) for s in seeds] or [""]

    def joined(points: Sequence[str]) -> list[str]:
        return [JOINT.join(filter(None, parts)) for parts in product(variants, points, endings)]

    points = [JOINT.join(parts) for parts in product(*map(_labels, *_short(grid)))] if grid else [""]
    if any(len(name) > MOST_NAME for name in joined(points)):
        points = [f"grid-{i:0{len(str(len(points)))}}" for i in range(1, len(points) + 1)]
    return joined(points)


def _short(grid: dict[str, list[Any]]) -> tuple[list[str], list[list[Any]]]:
    """Of each key as many last parts as tell it from the others, and the values of each."""
    keys = [key.split(".") for key in grid]
    depths = range(1, max(map(len, keys)) + 1)
    short = [
        next(
            (".".join(key[-d:]) for d in depths if sum(k[-d:] == key[-d:] for k in keys) == 1), ".".join(key)
        )
        for key in keys
    ]
    return short, list(grid.values())


def _labels(key: str, values: Sequence[Any]) -> list[str]:
    """A word for each value of a key; numbers from 1, where the words would not tell them apart."""
    words = [_word(value) for value in values]
    if "" in words or len({word.casefold() for word in words}) < len(words):
        words = [str(i) for i in range(1, len(values) + 1)]
    return [f"{UNSAFE.sub('-', key).strip('-._') or 'key'}-{word}" for word in words]


def _word(value: Any) -> str:
    """A value as a part of a folder's name: of a section its kind, of a path its end; empty for what has no
    such word."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return (short if float(short) == value else repr(float(value))).replace("+", "")
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, dict):
        value = value.get("kind")
    if not isinstance(value, str):
        return ""
    return UNSAFE.sub("-", PurePosixPath(value).name).strip("-.")


def sweep_problems(section: Sweep, tree: Any, seed: int) -> Iterator[Problem]:
    """What is wrong with a sweep, beside what is wrong with each run by itself.

    Args:
        section: the sweep's.
        tree: of the sweep in the scenario's text.
        seed: the scenario's own.
    """
    seeds = section.seeds_from(seed)
    repeated = _repeated(seeds)
    if repeated:
        yield ("seeds",), f"got {repeated[0]} twice, expected each seed once"
    before: list[tuple[str, str]] = [
        (str(key), f"sweep.variants.{name}") for name, changes in section.variants.items() for key in changes
    ]
    for key, values in section.grid.items():
        yield from _grid_problems(key, values, before, bool(seeds))
        before.append((key, f"sweep.grid.{key}"))
    counts = {
        "variants": len(section.variants) or 1,
        "combinations": prod(map(len, section.grid.values())),
        "seeds": len(seeds) or 1,
    }
    if (runs := prod(counts.values())) > MOST_RUNS:
        factors = " × ".join(f"{count:,} {what}" for what, count in counts.items() if count > 1)
        yield (), f"got {runs:,} runs ({factors}), expected at most {MOST_RUNS:,}"
        return
    names = run_names(list(section.variants) or [""], section.grid, seeds)
    if not (section.lists_runs or repeated) and (alike := _repeated([name.casefold() for name in names])):
        yield (), f"got two runs called {alike[0]}, expected variants with names that tell them apart"
    for name in names:
        if not re.fullmatch(NAME_PATTERN, name) and name:
            yield (
                (),
                f"got a run called {name}, expected at most {MOST_NAME} characters: a shorter variant's name",
            )
            break
        if name in OF_SWEEP:
            yield ("variants", name), "got the name of a file in the sweep's own folder, expected another"


def _grid_problems(
    key: str, values: Sequence[Any], before: Sequence[tuple[str, str]], has_seeds: bool
) -> Iterator[Problem]:
    """What is wrong with one key of a grid. `before`: the keys that are set earlier, each with its place."""
    place: Loc = ("grid", key)
    section = key.partition(".")[0]
    if section in ("name", "sweep"):
        yield (
            place,
            f"got {key}, which each run has its own of, expected a key that can change what a run does",
        )
    if key == "seed" and has_seeds:
        yield place, "got seed beside sweep.seeds, expected one of them"
    alike = _repeated([repr(plain(value)) for value in values])
    if alike:
        shown = next(kind_of(plain(v)) for v in values if repr(plain(v)) == alike[0])
        yield place, f"got {shown} twice, expected each value once"
    for earlier, where in before:
        if earlier == key or earlier.startswith(f"{key}."):
            yield (
                place,
                f"got a key that takes the place of what {where} sets, expected another or a part of it",
            )


def _repeated(values: Sequence[Any]) -> list[Any]:
    """The values that are there more than once, each once."""
    known: set[Any] = set()
    again: dict[Any, None] = {}
    for value in values:
        if value in known:
            again[value] = None
        known.add(value)
    return list(again)
