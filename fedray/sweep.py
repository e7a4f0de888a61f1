"""A sweep: the variants of a scenario, each a run of its own in a process of its own, side by side on one
Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedray.planning.placement import Node, pack
from fedray.resume import finished, keep_result, reopened
from fedray.runs import reader
from fedray.runs.environment import command, environment, users_code
from fedray.runs.folder import PREPARED, RunFolder
from fedray.runs.lock import locked
from fedray.runs.replicates import summary
from fedray.scenario import Loaded, ScenarioError
from fedray.scenario.load import load_text
from fedray.scenario.tree import plain
from fedray.terminal import Quiet

POLL_INTERVAL_S = 0.5  # how often the variants' folders are read


@dataclass
class Variant:
    name: str
    folder: Path
    rounds: int  # that it is to have
    process: Any = None  # once it has been started
    shown: int = 0  # lines of its metrics.jsonl

    @property
    def result(self) -> dict[str, Any] | None:
        result: dict[str, Any] | None = RunFolder(self.folder).read("result.json")
        return result

    @property
    def is_done(self) -> bool:
        """Whether it has come to its end, after all its rounds or because its evaluations ended it."""
        result = self.result
        return result is not None and ((result.get("rounds") or 0) >= self.rounds or "stopped" in result)


def longer(run: RunFolder, loaded: Loaded, rounds: int) -> Loaded:
    """A sweep of which every run goes on to the same round.

    Args:
        run: the sweep's folder.
        loaded: its scenario as it was.
        rounds: of every run.

    Raises:
        ScenarioError: where a run has done more, where its runs differ in how many rounds they have, or where
            what one has done depends on how many there are.
    """
    lengths = {name: one.scenario.training.rounds for name, one in loaded.variants.items()}
    if len(set(lengths.values())) > 1:
        got = "a sweep whose runs differ in training.rounds"
        raise ScenarioError([f"--rounds {rounds}: got {got}, expected one of its runs: {run.path}/NAME"])
    if rounds <= (planned := next(iter(lengths.values()))):
        raise ScenarioError(
            [f"--rounds {rounds}: got no more than the {planned} rounds that its runs have, expected more"]
        )
    for name in lengths:
        if (run.path / name / reader.SCENARIO).is_file():
            reopened(RunFolder.reopen(run.path / name), rounds)
    tree = plain(loaded.tree)
    tree["training"]["rounds"] = rounds
    for changes in tree["sweep"]["variants"].values():
        changes.pop("training.rounds", None)
        changes["training.rounds"] = rounds  # the last word
    return load_text(json.dumps(tree), loaded.file, code=loaded.code)


def run(loaded: Loaded, parent: RunFolder, progress: Quiet) -> dict[str, Any]:
    """Runs every variant that has no result yet, as many at once as fit, and gives the parent's result.json:
    `status` done or failed, and each variant's own result. A variant that fails does not stop the others."""
    with locked(parent.path, progress.on_note):
        return _run(loaded, parent, progress)


def _run(loaded: Loaded, parent: RunFolder, progress: Quiet) -> dict[str, Any]:
    scenarios = loaded.variants
    variants = [
        Variant(name, parent.path / name, one.scenario.training.rounds) for name, one in scenarios.items()
    ]
    if (before := finished(parent)) is not None and not all(variant.is_done for variant in variants):
        progress.on_note(f"its result so far is kept in {keep_result(parent, before)}")
    parent.keep_scenario(loaded)
    for variant in variants:
        _prepare(variant, scenarios[variant.name])
    if parent.read("env.json") is None:
        parent.write(
            "env.json", environment() | command() | users_code(*(v.scenario for v in scenarios.values()))
        )
    progress.variants({name: v.scenario.training.rounds for name, v in scenarios.items()})
    waiting = [v for v in variants if not v.is_done]
    parent.training = True
    running: list[Variant] = []
    with _nodes(loaded) as nodes:
        assert loaded.scenario.sweep is not None
        at_once = loaded.scenario.sweep.at_once
        fit = min(pack(v.scenario, nodes).at_once(nodes) for v in scenarios.values())
        room = fit if at_once == "auto" else at_once
        try:
            while waiting or running:
                while waiting and len(running) < room:
                    running.append(_start(waiting.pop(0), loaded.code_folders))
                time.sleep(POLL_INTERVAL_S)
                for variant in list(running):
                    ended = variant.process.poll() is not None
                    for row in RunFolder(variant.folder).rows()[variant.shown :]:
                        progress.variant_round(variant.name, row)
                        variant.shown += 1
                    if ended:
                        running.remove(variant)
                        progress.variant_ended(
                            variant.name, "done" if variant.is_done else _last_words(variant)
                        )
        finally:
            for variant in running:
                variant.process.send_signal(signal.SIGINT)
            for variant in running:
                variant.process.wait()
    results = {
        v.name: (v.is_done and v.result)
        or {"status": "failed", "error": RunFolder(v.folder).read("error.json")}
        for v in variants
    }
    status = "done" if all(r["status"] == "done" for r in results.values()) else "failed"
    settings = {name: one.scenario.model_dump(mode="json") for name, one in scenarios.items()}
    result = {
        "status": status,
        "summary": summary(settings, results),
        "variants": {name: {"run": str(parent.path / name), **r} for name, r in results.items()},
    }
    parent.write("result.json", result)
    return result


def _prepare(variant: Variant, loaded: Loaded) -> None:
    """Its scenario, resolved, in its folder; one that stopped before its first checkpoint starts anew."""
    if not (variant.folder / "checkpoints").exists():
        variant.folder.mkdir(exist_ok=True)
        (variant.folder / "scenario.resolved.yaml").unlink(missing_ok=True)
        (variant.folder / "scenario.yaml").write_text(loaded.resolved(), encoding="utf-8")
        RunFolder(variant.folder).metrics.write_text("")
        (variant.folder / PREPARED).touch()


def _start(variant: Variant, code_folders: Sequence[Path]) -> Variant:
    """Its process, `fedray run` itself: a crash, a signal or a log stays its own. The scenario that it reads
    does not lie beside the user's own kinds."""
    new = not (variant.folder / "checkpoints").exists()
    what = (
        [str(variant.folder / "scenario.yaml"), "--out", str(variant.folder)]
        if new
        else ["--resume", str(variant.folder)]
    )
    if not new and reader.scenario(variant.folder).scenario.training.rounds < variant.rounds:
        what += ["--rounds", str(variant.rounds)]
    with (variant.folder / "output.log").open("a") as log:
        command = [sys.executable, "-m", "fedray", "run", *what, "--quiet"]
        variables = os.environ | {"FEDRAY_CODE": os.pathsep.join(map(str, code_folders))}
        variant.process = subprocess.Popen(
            command, stdout=log, stderr=log, text=True, start_new_session=True, env=variables
        )
    variant.shown = 0
    return variant


def _last_words(variant: Variant) -> str:
    error = RunFolder(variant.folder).read("error.json")
    if error:
        return f"failed: {error['message']}"
    lines = (variant.folder / "output.log").read_text(encoding="utf-8").strip().splitlines()
    return f"failed: {lines[-1] if lines else 'no message'}"


@contextmanager
def _nodes(loaded: Loaded) -> Iterator[list[Node]]:
    """What the variants share: one Ray, or this machine where they run without."""
    if loaded.scenario.runtime.executor == "serial":
        yield [Node(float(os.cpu_count() or 1))]
        return
    from fedray.executors.ray.connection import shared_cluster

    with shared_cluster() as nodes:
        yield nodes
