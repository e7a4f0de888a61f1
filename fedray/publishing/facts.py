"""What a model card says of a run, as values: read from its folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedray import shipped
from fedray.errors import printable
from fedray.publishing.settings import settings
from fedray.report import numbers
from fedray.report.shown import is_main
from fedray.resume import finished
from fedray.runs import reader
from fedray.runs.folder import RunFolder
from fedray.scenario import Scenario, ScenarioError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
NOT_FROM_ROUND = ("round", "wall_time_s")  # of the last round's metrics, what says nothing of the result
DIRECTIONS = ("uplink", "downlink", "sidelink", "backhaul")


@dataclass(frozen=True)
class Facts:
    """A finished run, as far as anybody may know it.

    Attributes:
        folder: the run's.
        scenario: with every default.
        result: result.json's object.
        privacy: privacy.json's; None where the run is not private.
        samples: that all clients hold; None where it is not recorded.
        over_seeds: the sweep's summary of its variant, where it is one of several seeds.
        packages: versions by package.
        citations: BibTeX.
    """

    folder: Path
    scenario: Scenario
    result: Mapping[str, Any]
    privacy: Mapping[str, Any] | None
    samples: int | None
    over_seeds: Mapping[str, Any] | None
    packages: Mapping[str, str | None]
    citations: str

    @property
    def final(self) -> Mapping[str, Any]:
        """The metrics of the last round."""
        return self.result.get("final") or {}

    @property
    def base(self) -> str | None:
        """The name of the base model; None where there is none, or where it is a folder."""
        base = getattr(self.scenario.model, "base", None)
        if base is None or (not HUB_NAME.fullmatch(base) and "/" in base) or Path(base).is_absolute():
            return None
        return str(base)

    @property
    def hub_base(self) -> str | None:
        """The base model's name on the hub, where it is there."""
        return self.base if self.base is not None and "/" in self.base else None

    @property
    def metrics(self) -> list[tuple[str, float | None, float]]:
        """Key, value of the base model and value of the result, of what was measured."""
        before = self.result.get("baseline") or {}
        measured = {key: value for key, value in self.final.items() if is_main(key) and value is not None}
        return [(key, before.get(key), value) for key, value in measured.items()]

    @property
    def data(self) -> str:
        """Where the data are from, without the names of files: fedray's own, or the kind alone."""
        path = getattr(self.scenario.data, "path", None)
        if isinstance(path, str) and path.startswith(shipped.PREFIX):
            return f"{path.removeprefix(shipped.PREFIX)}, which ships with fedray"
        return self.scenario.data.kind

    def as_json(self) -> dict[str, Any]:
        """What fedray.json says."""
        return {
            "fedray": self.packages.get("fedray"),
            "seed": self.scenario.seed,
            "settings": settings(self.scenario),
            "rounds": self.result["rounds"],
            "weights_sha256": self.result["weights_sha256"],
            "metrics": {
                key: value
                for key, value in self.final.items()
                if key not in NOT_FROM_ROUND and isinstance(value, int | float)
            },
            "baseline": self.result.get("baseline"),
        }


def facts(path: Path) -> Facts:
    """Reads a finished run.

    Raises:
        ScenarioError: where a folder holds no run, a sweep, or a run that is not done.
    """
    run = RunFolder.reopen(path)
    loaded = reader.scenario(path)
    if loaded.scenario.sweep is not None:
        runs = ", ".join(str(path / name) for name in list(loaded.scenario.sweep.variants)[:20])
        raise ScenarioError([printable(f"{path}: got a sweep, expected one of its runs: {runs}")])
    result = finished(run)
    if result is None:
        expected = f"one that has come to its end (fedray run --resume {path})"
        raise ScenarioError([printable(f"{path}: got a run that is not done, expected {expected}")])
    return Facts(
        path,
        loaded.scenario,
        result,
        run.read("privacy.json"),
        _samples(run),
        _over_seeds(path),
        (run.read("env.json") or {}).get("packages", {}),
        reader.text(path, "CITATION.bib").strip(),
    )


def _samples(run: RunFolder) -> int | None:
    state = next((state for _, state in run.states() if not isinstance(state, str)), None)
    samples = None if state is None else state.belongs.get("data", {}).get("samples")
    return samples if isinstance(samples, int) else None


def _over_seeds(path: Path) -> Mapping[str, Any] | None:
    """What the sweep that a run is part of says of its variant, where that has several seeds."""
    parent = path.resolve().parent
    try:
        if not (parent / reader.SCENARIO).is_file():
            return None
        summary = (reader.document(parent, "result.json") or {}).get("summary") or {}
    except ScenarioError:  # whatever lies there, it is no sweep
        return None
    name = path.resolve().name
    return next((one for one in summary.values() if name in one["runs"] and one["done"] > 1), None)


def sent(final: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Bytes by direction, of those over which something went."""
    known = [(direction, final.get(f"bytes_{direction}") or 0) for direction in DIRECTIONS]
    return [(direction, nbytes) for direction, nbytes in known if nbytes]


def named(key: str) -> str:
    """A metric's name for a person."""
    return numbers.name(key)
