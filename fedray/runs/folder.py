"""The run folder (see CONTRACT: Run folder): its files, its lines a round, its checkpoints."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fedray.network.clock import Event, Ledger
from fedray.runs import reader
from fedray.scenario.load import Loaded, ScenarioError

KEEP = 2  # checkpoints
# What a run writes before anything has trained.
BEGUN = ["scenario.yaml", "scenario.resolved.yaml", "metrics.jsonl", "timeline.jsonl", "run.log", "env.json", "CITATION.bib"]
BEGUN += ["partition.json", "split.json"]
PREPARED = ".prepared"  # in a folder that a sweep has made for one of its variants


@dataclass(frozen=True)
class Saved:
    """What a checkpoint's files should be."""

    weights_sha256: str  # of the global buffer
    files: dict[str, str]  # sha256 of every other file: the server's state, the clients'

    @property
    def clients(self) -> dict[int, str]:
        """The file of each client that has a state."""
        names = {name: Path(name).stem.removeprefix("client-") for name in self.files if name.startswith("client-")}
        return {int(number): name for name, number in names.items()}


@dataclass(frozen=True)
class State:
    """What a checkpoint knows beside the weights."""

    round: int
    saved: Saved
    ledger: Ledger
    wall_time_s: float
    failures: int
    metrics_lines: int
    timeline_lines: int


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics, self.timeline = path / "metrics.jsonl", path / "timeline.jsonl"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, path: Path, loaded: Loaded) -> RunFolder:
        """A new run's folder.

        Raises:
            ScenarioError: where a run is there already.
        """
        if (path / "scenario.resolved.yaml").exists():
            raise ScenarioError([f"--out {path}: got a folder that already holds a run, expected a new one (or --resume {path})"])
        try:
            if path.exists() and any(path.iterdir()) and not (path / PREPARED).exists():
                raise ScenarioError([f"--out {path}: got a folder that holds other files, expected a new or an empty one"])
            path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            got = "a file" if path.is_file() else f"a place where none can be made ({e.strerror})"
            raise ScenarioError([f"--out {path}: got {got}, expected a new folder"]) from None
        (path / PREPARED).unlink(missing_ok=True)
        (path / "scenario.yaml").write_text(loaded.text, encoding="utf-8")
        (path / "scenario.resolved.yaml").write_text(loaded.resolved(), encoding="utf-8")
        run = cls(path)
        if loaded.scenario.sweep is None:  # its variants have their own
            run.metrics.touch()
            run.timeline.touch()
        return run

    def discard(self) -> None:
        """Takes back `create`, for a run that was refused before it began: nothing is left of it."""
        if not self.checkpoints.exists():
            for name in BEGUN:
                (self.path / name).unlink(missing_ok=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()

    @classmethod
    def reopen(cls, path: Path, option: str = "") -> RunFolder:
        """The folder of a run that was begun; `option` is the command line's, for the error.

        Raises:
            ScenarioError: where no run is there, or a part of it is elsewhere.
        """
        if not (path / reader.SCENARIO).is_file():
            raise ScenarioError([f"{option}{path}: got a folder that holds no run, expected one with {reader.SCENARIO}"])
        reader.refuse_links(path)
        return cls(path)

    def write(self, name: str, value: Any) -> None:
        """A JSON file, whole or not at all."""
        part = self.path / f".{name}.part"
        part.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
        part.replace(self.path / name)

    def read(self, name: str) -> Any:
        """A JSON file's object; none where there is none. Raises ScenarioError for what no run writes."""
        return reader.document(self.path, name)

    def append(self, events: list[Event], metrics: dict[str, Any]) -> None:
        """One round's lines."""
        with self.timeline.open("a") as f:
            f.writelines(json.dumps(e.row()) + "\n" for e in events)
        with self.metrics.open("a") as f:
            f.write(json.dumps(metrics) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """metrics.jsonl, a dictionary a round; a line that is being written is not there yet."""
        return reader.lines(self.path, self.metrics.name)

    def write_parquet(self) -> None:
        """metrics.parquet: the same rows; what a round did not measure is null."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = self.rows()
        names = dict.fromkeys(name for row in rows for name in row)
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), self.path / "metrics.parquet")

    def checkpoint(self, round: int, write: Callable[[Path, Path | None], Saved], ledger: Ledger, wall_time_s: float, failures: int) -> str:
        """Written beside and renamed, so that a checkpoint is whole or not there. The last two stay. Gives the weights'
        sha256."""
        before = next(iter(self._checkpoints()), None)
        part = self.checkpoints / f".round-{round:04d}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        saved = write(part, before)
        lines = [_lines(f) for f in (self.metrics, self.timeline)]
        state = State(round, saved, ledger, wall_time_s, failures, *lines)
        with (part / "state.json").open("w") as f:
            json.dump(asdict(state), f, indent=1)
            f.flush()
            os.fsync(f.fileno())
        final = self.checkpoints / f"round-{round:04d}"
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
        for old in self._checkpoints()[KEEP:]:
            shutil.rmtree(old, ignore_errors=True)
        return saved.weights_sha256

    def states(self) -> Iterator[tuple[Path, State | str]]:
        """Checkpoints, newest first, each with its state or with what is wrong with it."""
        for folder in self._checkpoints():
            try:
                reader.refuse_links_within(self.path, folder)
                raw = self.read(f"checkpoints/{folder.name}/state.json") or {}
                yield folder, State(**(raw | {"ledger": Ledger(**raw["ledger"]), "saved": Saved(**raw["saved"])}))
            except (OSError, ValueError, TypeError, KeyError) as e:
                yield folder, f"state.json cannot be read: {e}"

    def cut_back(self, state: State) -> None:
        """Metrics and timeline as they were at the checkpoint; later checkpoints, which were refused, are gone."""
        for folder in self._checkpoints():
            if _round_of(folder) > state.round:
                shutil.rmtree(folder)
        for file, keep in ((self.metrics, state.metrics_lines), (self.timeline, state.timeline_lines)):
            lines = file.read_text().splitlines(keepends=True)[:keep]
            part = file.with_suffix(".part")
            part.write_text("".join(lines))
            part.replace(file)
        for grid in (self.path / "samples").glob("round-*"):
            if (named := reader.ROUND.fullmatch(grid.stem)) and int(named[1]) > state.round:
                grid.unlink()
        (self.path / "error.json").unlink(missing_ok=True)

    def artifacts(self) -> list[str]:
        """Result files, relative to the run folder."""
        found = [p for folder in ("model", "samples") for p in sorted((self.path / folder).rglob("*")) if p.is_file()]
        return [str(p.relative_to(self.path)) for p in found]

    def _checkpoints(self) -> list[Path]:
        found = (folder for folder in self.checkpoints.glob("round-*") if reader.ROUND.fullmatch(folder.name))
        return sorted(found, key=_round_of, reverse=True)


def saved_files(checkpoint: Path) -> dict[str, str]:
    """The sha256 of a checkpoint's files beside the weights."""
    files: dict[str, str] = json.loads((checkpoint / "state.json").read_text())["saved"]["files"]
    return files


def new_path(name: str) -> Path:
    """runs/NAME, or the first of runs/NAME-2, -3, ... that is free; FEDRAY_RUNS stands for runs/."""
    return first_free(Path(os.environ.get("FEDRAY_RUNS") or "runs"), name)


def first_free(folder: Path, name: str, suffix: str = "") -> Path:
    """folder/name, or the first of folder/name-2, name-3, ... that is not there."""
    names = (name if n == 1 else f"{name}-{n}" for n in count(1))
    return next(path for n in names if not (path := folder / f"{n}{suffix}").exists())


def _round_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("round-"))


def _lines(file: Path) -> int:
    return file.read_text().count("\n")
