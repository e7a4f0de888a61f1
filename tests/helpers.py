"""Small scenarios made of the quickstart, and ways to run them."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from fedray import shipped
from fedray.checks import check
from fedray.executors import Job
from fedray.scenario import Loaded
from fedray.scenario.scenario import Scenario

if TYPE_CHECKING:
    from fedray.callbacks import Callback

PROMPT = "a photo of a sneaker in ink style"
TINY = {
    "training.rounds": 2,
    "training.local_steps": 1,
    "evaluation": {"prompts": [PROMPT], "images_per_prompt": 1, "inference_steps": 2},
    "runtime": {"executor": "serial"},
}
UNSEEN = {"evaluation": {"prompts": []}}  # where nobody looks at images
# auto would start one a client, and each imports torch and diffusers, which is most of such a test's time
ONE_ACTOR = {"executor": "ray", "actors": 1}
TWO_ACTORS = {"executor": "ray", "actors": 2}


GARMENTS = {  # a classifier, whose actors import nothing but torch: where any model will do
    "name": "garments",
    "seed": 0,
    "topology": {"kind": "parallel"},
    "population": {"clients": 5, "per_round": 5},
    "data": {"kind": "fashion_mnist_mini", "partition": {"kind": "dirichlet", "alpha": 1.0}},
    "model": {"kind": "classifier", "network": "cnn"},
    "tuning": {"kind": "full"},
    "training": {
        "rounds": 2,
        "local_steps": 1,
        "batch_size": 8,
        "optimizer": {"kind": "sgd", "learning_rate": 0.05},
    },
    "evaluation": {},
    "runtime": {"executor": "serial"},
}

# changes of the above: who of five clients drew some ink; there is nothing to test on, so no evaluator starts
ARTISTS = {
    "data": {"kind": "image_folder", "path": "shipped:ink", "partition": {"kind": "folder"}},
    "model.resolution": 32,
    "training.batch_size": 4,
}


@cache
def _quickstart() -> Any:
    return YAML().load(shipped.scenarios()["quickstart"].read_text())


def quickstart() -> Any:
    return copy.deepcopy(_quickstart())


def write(file: Path, changes: dict[str, Any], tree: Any = None) -> Path:
    """A scenario (otherwise the quickstart) as a file, with {"a.b": value} changed; None takes a key away."""
    tree = quickstart() if tree is None else tree
    for path, value in changes.items():
        *sections, key = path.split(".")
        at = tree
        for section in sections:
            at = at[section]
        if value is None:
            at.pop(key)
        else:
            at[key] = copy.deepcopy(value)  # what is written shall not change the caller's
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as f:
        YAML().dump(tree, f)
    return file


def tiny(folder: Path, changes: dict[str, Any] | None = None, name: str = "tiny.yaml") -> Path:
    """The quickstart made so small that it runs in seconds."""
    return write(folder / name, TINY | (changes or {}))


def garments(folder: Path, changes: dict[str, Any] | None = None, name: str = "garments.yaml") -> Path:
    """Five clients that train a small network on Fashion-MNIST side by side, two rounds of a step."""
    return write(folder / name, changes or {}, copy.deepcopy(GARMENTS) | {"network": quickstart()["network"]})


def job_of(file: Path) -> tuple[Loaded, Job]:
    loaded = check(file)
    return loaded, Job(loaded.scenario, loaded.folder)


def begin(executor: Any) -> None:
    """An executor before its first round."""
    from fedray.data import holdings
    from fedray.planning.shared import shared

    scenario = executor.job.scenario
    executor.begin(shared(scenario, *holdings(scenario, executor.job.folder)))


@contextmanager
def unevaluated() -> Iterator[None]:
    """Nothing is evaluated, and no evaluator starts with an executor: where weights alone are compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scenario, "has_evaluation", False)
        yield


def begun(file: Path) -> Any:
    """A serial executor of a scenario, before its first round."""
    from fedray.executors.serial import SerialExecutor

    executor = SerialExecutor(job_of(file)[1])
    begin(executor)
    return executor


def run(
    file: Path, out: Path, resume: bool = False, callback: Callback | list[Callback] | None = None
) -> dict[str, Any]:
    """A run in this process (and in Ray's, where the scenario says so); result.json's object."""
    from fedray import engine
    from fedray.runs.folder import RunFolder
    from fedray.terminal import Quiet

    callbacks = callback if isinstance(callback, list) else [callback or Quiet()]
    if resume:
        return engine.run(
            check(out / "scenario.resolved.yaml"), RunFolder.reopen(out), callbacks, resume=True
        )
    loaded = check(file)
    return engine.run(loaded, RunFolder.create(out, loaded), callbacks)


def broken_off(run: Path, place: Path, round_number: int) -> Path:
    """A copy of a finished run, as if it had been broken off before it kept the end of this round."""
    shutil.copytree(run, place)
    shutil.rmtree(place / "checkpoints" / f"round-{round_number:04}")
    (place / "result.json").unlink()
    return place


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def timeless(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "wall_time_s"} for row in metrics]


class CommandLine:
    """`fedray ...` in this process: exit code, standard output, standard error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capfd = monkeypatch, capfd

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        from fedray.cli import main

        self.monkeypatch.setattr(sys, "argv", ["fedray", *map(str, arguments)])
        self.capfd.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as e:
            code = e.code or 0
        return code, *self.capfd.readouterr()


def chained(round, clients, chains, order, rng):
    """A relay over clients dealt at random into chains."""
    from fedray.topologies.relay import random_groups, relay

    return relay(round, random_groups(clients, chains, rng), order, rng)


def way(order, clients, rng):
    """The clients in the order in which they get the buffer."""
    prefers, left, here, path = order(clients, rng), set(clients), None, []
    while left:
        here = prefers(here, left)[0]
        left.remove(here)
        path.append(here)
    return path


def sent(link, sender, receiver, nbytes, messages=1, share=1.0, round=1, time_s=0.0, number=0):
    """One transfer's seconds and joules over a link, and whether it is lost."""
    import numpy as np

    from fedray.network.links import RoundStart, TransferRequests

    each = (sender, receiver, nbytes, messages, share, number)
    one = TransferRequests(*(np.array([value]) for value in each))
    transfers = link.transfers(RoundStart(round, time_s), one)
    return (transfers.at(0, time_s) if transfers.at else (transfers.time_s[0], transfers.energy_j[0])), bool(
        transfers.lost[0]
    )
