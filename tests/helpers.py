"""Small scenarios made of the quickstart, and ways to run them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fedray import shipped
from fedray.check import check
from fedray.executors import Job
from fedray.scenario import Loaded

PROMPT = "a photo of a sneaker in ink style"
TINY = {
    "training.rounds": 2,
    "training.local_steps": 1,
    "evaluation": {"prompts": [PROMPT], "images_per_prompt": 1, "inference_steps": 2},
    "runtime": {"executor": "serial"},
}
UNSEEN = {"evaluation": {"prompts": []}}  # where nobody looks at images


def write(file: Path, changes: dict[str, Any]) -> Path:
    """The quickstart as a file, with {"a.b": value} changed; None takes a key away."""
    yaml = YAML()
    tree = yaml.load(shipped.scenarios()["quickstart"].read_text())
    for path, value in changes.items():
        *sections, key = path.split(".")
        at = tree
        for section in sections:
            at = at[section]
        if value is None:
            at.pop(key)
        else:
            at[key] = value
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as f:
        yaml.dump(tree, f)
    return file


def tiny(folder: Path, changes: dict[str, Any] | None = None, name: str = "tiny.yaml") -> Path:
    """The quickstart made so small that it runs in seconds."""
    return write(folder / name, TINY | (changes or {}))


def job_of(file: Path) -> tuple[Loaded, Job]:
    loaded = check(file)
    return loaded, Job(loaded.scenario, loaded.folder)


def run(file: Path, out: Path, resume: bool = False) -> dict[str, Any]:
    """A run in this process (and in Ray's, where the scenario says so); result.json's object."""
    from fedray import engine
    from fedray.runs.folder import RunFolder
    from fedray.terminal import Quiet

    if resume:
        return engine.run(check(engine.resume_scenario(out)), RunFolder.reopen(out), Quiet(), resume=True)
    loaded = check(file)
    return engine.run(loaded, RunFolder.create(out, loaded), Quiet())


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
