"""What can be refused before torch: text, sections, combinations, and whether files exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fedray import shipped
from fedray.data import open_source, partition
from fedray.data.image_folder import read
from fedray.data.partition import unreadable
from fedray.learners.bases import locate
from fedray.scenario import Loaded, Refused, ScenarioError, load


def check(file: Path, settings: Sequence[str] = (), seed: int | None = None) -> Loaded:
    """A scenario whose files are there.

    Raises:
        ScenarioError: with every problem found.
    """
    loaded = load(file, settings, seed)
    scenario = loaded.scenario
    refused: list[Refused] = []

    def attempt(action: Callable[[], object]) -> None:
        try:
            action()
        except Refused as e:
            refused.append(e)

    attempt(lambda: partition(scenario, open_source(scenario.data, loaded.folder)))
    attempt(lambda: locate(scenario.model.base, loaded.folder))
    if (reference := scenario.evaluation.reference) is not None:
        attempt(lambda: read(reference.path, loaded.folder, "evaluation.reference", reference.caption_key, None))
        attempt(lambda: _judge(reference.judge, loaded.folder))
    if refused:
        raise loaded.error(refused)
    return loaded


def readable_parts(loaded: Loaded) -> list[np.ndarray]:
    """Each client's samples, after every image has been opened: what `plan` and `run` need of the data.

    Raises:
        Refused, ScenarioError: where files are missing, or with every image that cannot be read.
    """
    samples = open_source(loaded.scenario.data, loaded.folder)
    parts = partition(loaded.scenario, samples)
    if bad := list(unreadable(samples, parts)):
        raise loaded.error(bad)
    return parts


def find(scenario: str) -> Path:
    """A scenario by its file, or by the name of a shipped one.

    Raises:
        ScenarioError: where neither is there.
    """
    if Path(scenario).is_file():
        return Path(scenario)
    ours = shipped.scenarios()
    if scenario in ours:
        return ours[scenario]
    import difflib

    near = difflib.get_close_matches(scenario, ours, n=1)
    hint = f"{near[0]} (did you mean it?)" if near else "a file, or one of " + ", ".join(ours)
    raise ScenarioError([f"{scenario}: got a scenario that is not there, expected {hint}"])


def _judge(path: str, folder: Path) -> None:
    try:
        file = shipped.resolve(path, folder)
    except FileNotFoundError as e:
        raise Refused("evaluation.reference.judge", repr(path), str(e)) from None
    if not file.is_file():
        raise Refused("evaluation.reference.judge", repr(path), "a safetensors file of a judge")
