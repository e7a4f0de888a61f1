"""The run folder (see CONTRACT: Run folder): its files, its lines a round, its checkpoints."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedray.files import naming, whole, write_synced, write_whole
from fedray.network.ledger import Event, Ledger
from fedray.runs import reader
from fedray.runs.lock import LOCK
from fedray.runs.state import Saved, State
from fedray.scenario.load import Loaded, ScenarioError

if TYPE_CHECKING:
    import pyarrow

    from fedray.runs.remote import Remote

KEEP = 2  # checkpoints
# What a run calls them, and its samples; whatever else lies beside them is somebody else's.
CHECKPOINT = re.compile(r"round-(?!0\d{4})\d{4,9}")
SAMPLE = re.compile(r"(round|attack|reconstructions)-(?!0\d{4})\d{4,9}\.(png|txt)")
# in a folder in which a run may begin: a sweep's for its variants, or that of one that was broken off
PREPARED = ".prepared"
# What a run writes before anything has trained.
BEGUN = [
    "scenario.yaml",
    "scenario.resolved.yaml",
    "metrics.jsonl",
    "timeline.jsonl",
    "clients.jsonl",
    "client_tests.jsonl",
    "run.log",
    "env.json",
    "CITATION.bib",
]
COLLECTION = "collection.json"  # what clients sent the server before it began
BEGUN += ["partition.json", "privacy.json", "split.json", COLLECTION, LOCK, PREPARED]


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.timeline = path / "timeline.jsonl"
        self.clients = path / "clients.jsonl"
        self.client_tests = path / "client_tests.jsonl"  # only of a run that tests clients' own models
        self.checkpoints = path / "checkpoints"
        self.belongs: dict[str, Any] = {}  # what its checkpoints are to say that they belong to
        self.training = False  # whether anything has been trained by this process
        self.remote: Remote | None = None  # where else it is

    @classmethod
    def create(cls, path: Path, loaded: Loaded) -> RunFolder:
        """A new run's folder.

        Raises:
            ScenarioError: where a run is there already.
        """
        if (path / "scenario.resolved.yaml").exists():
            raise ScenarioError(
                [
                    f"--out {path}: got a folder that already holds a run, expected a new one (or --resume"
                    f" {path})"
                ]
            )
        try:
            if path.exists() and any(path.iterdir()) and not (path / PREPARED).exists():
                raise ScenarioError(
                    [f"--out {path}: got a folder that holds other files, expected a new or an empty one"]
                )
            path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            got = "a file" if path.is_file() else f"a place where none can be made ({e.strerror})"
            raise ScenarioError([f"--out {path}: got {got}, expected a new folder"]) from None
        run = cls(path)
        try:
            (path / PREPARED).touch()
            write_whole(path / "scenario.yaml", loaded.text)
            if loaded.scenario.sweep is None:  # its variants have their own
                write_whole(run.metrics, "")
                write_whole(run.timeline, "")
                write_whole(run.clients, "")
            # with it the run is there, and can be resumed
            write_whole(path / reader.SCENARIO, loaded.resolved())
            (path / PREPARED).unlink()
        except OSError as e:
            run.discard()
            raise unwritable(path, e) from None
        return run

    def keep_scenario(self, loaded: Loaded) -> None:
        """What the run does from now on, where it goes on with more rounds than it had."""
        if (text := loaded.resolved()) != (self.path / reader.SCENARIO).read_text(encoding="utf-8"):
            write_whole(self.path / reader.SCENARIO, text)

    def discard(self) -> None:
        """Takes back `create`, for a run that was refused before it began: nothing is left of it."""
        with suppress(OSError):  # where nothing can be written, nothing has been
            if self.checkpoints.exists():
                return
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
            begun = (path / PREPARED).is_file()
            advice = (
                f" (this one was broken off before it began: fedray run ... --out {path})" if begun else ""
            )
            raise ScenarioError(
                [
                    f"{option}{path}: got a folder that holds no run, expected one with"
                    f" {reader.SCENARIO}{advice}"
                ]
            )
        reader.refuse_links(path)
        return cls(path)

    def write(self, name: str, value: Any) -> None:
        """A JSON file, whole or not at all."""
        write_whole(self.path / name, json.dumps(value, indent=1, allow_nan=False) + "\n")

    def read(self, name: str) -> Any:
        """A JSON file's object; none where there is none. Raises ScenarioError for what no run writes."""
        return reader.document(self.path, name)

    def append(
        self,
        events: list[Event],
        metrics: dict[str, Any],
        clients: Sequence[dict[str, Any]] = (),
        tests: Sequence[dict[str, Any]] = (),
    ) -> None:
        """One round's lines.

        Args:
            events: of its timeline.
            metrics: the round's own, which is written last.
            clients: of its clients.
            tests: of clients' own models.
        """
        self._append(self.timeline, (e.row() for e in events))
        self._append(self.clients, clients)
        if tests:
            self._append(self.client_tests, tests)
        self._append(self.metrics, [metrics])

    def _append(self, file: Path, rows: Iterable[dict[str, Any]]) -> None:
        with naming(file), file.open("a") as f:
            f.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)

    def rows(self) -> list[dict[str, Any]]:
        """metrics.jsonl, a dictionary a round; a line that is being written is not there yet."""
        return reader.lines(self.path, self.metrics.name)

    def client_rows(self) -> list[dict[str, Any]]:
        """clients.jsonl, a dictionary a round and client."""
        return reader.lines(self.path, self.clients.name)

    def write_parquet(self) -> None:
        """metrics.parquet, clients.parquet and, where there are some, client_tests.parquet: the rows of the
        files of lines."""
        import pyarrow.parquet as pq

        tests = [self.client_tests] if self.client_tests.exists() else []
        for lines in (self.metrics, self.clients, *tests):
            with whole(lines.with_suffix(".parquet")) as part:
                pq.write_table(self.table(lines.name), part)

    def table(self, name: str) -> pyarrow.Table:
        """A file of lines as an Arrow table; what a line does not have is null."""
        return reader.table(self.path, name)

    def checkpoint(
        self,
        round: int,
        write: Callable[[Path, Path | None], Saved],
        ledger: Ledger,
        wall_time_s: float,
        failures: int,
        seal: Callable[[Path], None] | None = None,
    ) -> str:
        """Written beside and renamed, so that a checkpoint is whole or not there. The last two stay. Gives
        the weights' sha256.

        Args:
            round: that has been done.
            write: writes the weights into a folder, given the checkpoint before.
            ledger: of the rounds so far.
            wall_time_s: of the run so far.
            failures: data failures so far.
            seal: signs the files of the folder once all are there.
        """
        before = next(iter(self._checkpoints()), None)
        part = self.checkpoints / f".round-{round:04d}.part"
        shutil.rmtree(part, ignore_errors=True)
        final = self.checkpoints / f"round-{round:04d}"
        try:
            with naming(part):
                part.mkdir(parents=True)
                saved = write(part, before)
                files = (self.metrics, self.timeline, self.clients, self.client_tests)
                metrics, timeline, clients, tests = (_lines(file) for file in files)
                counts = (metrics, timeline, clients, tests)
                state = State(round, saved, ledger, wall_time_s, failures, *counts, self.belongs)
                write_synced(part / "state.json", json.dumps(asdict(state), indent=1).encode())
                if seal is not None:
                    seal(part)
                shutil.rmtree(final, ignore_errors=True)
                part.rename(final)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for old in self._checkpoints()[KEEP:]:
            shutil.rmtree(old, ignore_errors=True)
        return saved.weights_sha256

    def states(self) -> Iterator[tuple[Path, State | str]]:
        """Checkpoints, newest first, each with its state or with what is wrong with it."""
        return ((folder, self.state(folder)) for folder in self._checkpoints())

    def state(self, folder: Path) -> State | str:
        """A checkpoint's state, or what is wrong with it."""
        try:
            reader.refuse_links_within(self.path, folder)
            raw = self.read(f"checkpoints/{folder.name}/state.json") or {}
            return State(**(raw | {"ledger": Ledger(**raw["ledger"]), "saved": Saved(**raw["saved"])}))
        except (OSError, ValueError, TypeError, KeyError) as e:
            return f"state.json cannot be read: {e}"

    def newest_sha256(self) -> str:
        """Of the weights of the newest checkpoint that can be read."""
        return next(state.saved.weights_sha256 for _, state in self.states() if not isinstance(state, str))

    def lost_lines(self, state: State) -> str | None:
        """What is missing of the lines that were there when a checkpoint was written, if so."""
        rounds = [row["round"] for row in self.rows()[: state.metrics_lines]]
        if rounds != list(range(1, state.round + 1)):
            return f"{self.metrics.name} has {len(rounds)} of its {state.metrics_lines} lines, or others"
        for file, expected in (
            (self.timeline, state.timeline_lines),
            (self.clients, state.clients_lines),
            (self.client_tests, state.client_tests_lines),
        ):
            if (lines := _lines(file)) < expected:
                return f"{file.name} has {lines} of its {expected} lines"
        return None

    def cut_back(self, state: State | None) -> None:
        """All as it was at a checkpoint, or (none) before the first round; later checkpoints, which were
        refused, are gone. Nothing is deleted before metrics and timeline are cut back, and nothing that is
        not a run's own."""
        done = state.round if state else -1
        kept = {
            self.metrics: state.metrics_lines if state else 0,
            self.timeline: state.timeline_lines if state else 0,
            self.clients: state.clients_lines if state else 0,
        }
        if self.client_tests.exists():
            kept[self.client_tests] = state.client_tests_lines if state else 0
        for file, keep in kept.items():
            lines = file.read_text().splitlines(keepends=True)[:keep] if file.exists() else []
            write_whole(file, "".join(lines))
        for folder in self._checkpoints():
            if _round_of(folder) > done:
                shutil.rmtree(folder)
        for part in self.checkpoints.glob(".*.part"):
            shutil.rmtree(part, ignore_errors=True)
        for file in self._samples():
            if _round_of(file) > done:
                file.unlink()
        for name in ("error.json", "result.json", *(() if state else ("baseline.json",))):
            (self.path / name).unlink(missing_ok=True)

    def artifacts(self) -> list[str]:
        """Result files, relative to the run folder."""
        model = [p for p in sorted((self.path / "model").rglob("*")) if p.is_file()]
        painted = [p for p in [self.path / "samples" / "pictures.png"] if p.is_file()]
        return [str(p.relative_to(self.path)) for p in (*model, *sorted([*self._samples(), *painted]))]

    def _checkpoints(self) -> list[Path]:
        """The folders that are called as a run calls them: no copies, backups or links."""
        folders = (
            p
            for p in self.checkpoints.glob("round-*")
            if CHECKPOINT.fullmatch(p.name) and p.is_dir() and not p.is_symlink()
        )
        return sorted(folders, key=_round_of, reverse=True)

    def _samples(self) -> list[Path]:
        return [
            p
            for p in (self.path / "samples").glob("*-*")
            if SAMPLE.fullmatch(p.name) and p.is_file() and not p.is_symlink()
        ]


def unwritable(path: Path, e: OSError) -> ScenarioError:
    """What is said of a run folder in which nothing can be written."""
    return ScenarioError(
        [f"{e.filename or path}: got {e.strerror or e}, expected a place that can be written"]
    )


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


def _round_of(file: Path) -> int:
    return int(file.stem.split("-")[1])


def _lines(file: Path) -> int:
    return file.read_text().count("\n") if file.exists() else 0
