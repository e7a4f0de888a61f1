"""Which runs one service can answer for together, decided before anything is started."""

from collections.abc import Sequence
from pathlib import Path

from fedray.http_service.requests import ServedRun
from fedray.learners.adapter_files import DIFFUSERS_FILE
from fedray.resume import finished
from fedray.runs import fingerprint, reader
from fedray.runs.folder import RunFolder
from fedray.scenario import Loaded, ScenarioError
from fedray.scenario.base import Refused

# what adapters have to agree in, beside their base, to share it
SHARED = ("model.kind", "model.resolution", "training.precision", "runtime.base_precision")


def read_runs(folders: Sequence[Path]) -> list[ServedRun]:
    """The runs, the first of which is the default.

    Raises:
        ScenarioError: for what is no run, a model that makes no images, and several that do not share a base.
    """
    folders = [RunFolder.reopen(folder).path for folder in folders]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ScenarioError(["RUN: got one run twice, expected each once"])
    loaded = [reader.scenario(folder) for folder in folders]
    for folder, one in zip(folders, loaded, strict=True):
        _refuse_no_images(folder, one)
        if finished(run := RunFolder.reopen(folder)) is None and next(run.states(), None) is None:
            expected = f"one that is done: fedray run --resume {folder}"
            raise ScenarioError([f"{folder}: got a run without a model, expected {expected}"])
    if len(folders) > 1:
        for folder, one in zip(folders, loaded, strict=True):
            _refuse_no_adapter(folder, one)
        _refuse_other_bases(folders, loaded)
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return [
        ServedRun(
            name=name,
            path=str(folder.resolve()),
            takes_prompts=one.scenario.model.takes_prompts,
            steps=one.scenario.evaluation.inference_steps,
            guidance=one.scenario.evaluation.guidance_scale,
            threads=one.scenario.runtime.threads,
        )
        for name, folder, one in zip(names, folders, loaded, strict=True)
    ]


def _refuse_no_images(folder: Path, loaded: Loaded) -> None:
    """Raises ScenarioError for a sweep, and for a model of which no request could get an image."""
    scenario = loaded.scenario
    if scenario.sweep:
        variants = ", ".join(str(folder / name) for name in scenario.sweep.variants)
        raise ScenarioError([f"{folder}: got a sweep, expected its runs: {variants}"])
    section = scenario.model
    if section.generates != "images":
        expected = "the run of a model that generates images"
        raise ScenarioError([f"{folder}: got a {section.kind}, expected {expected}"])
    if section.needs_condition:
        got = "a ControlNet without model.control.examples"
        raise ScenarioError([f"{folder}: got {got}, expected pictures that its images follow"])


def _refuse_no_adapter(folder: Path, loaded: Loaded) -> None:
    """Raises ScenarioError for a run that cannot stand beside others over one base."""
    scenario = loaded.scenario
    alone = f"a LoRA adapter, or to be served alone: fedray serve {folder}"
    section = scenario.model
    if not (scenario.tuning.has_adapters and section.has_frozen_base) or section.takes_condition:
        what = f"a {section.kind} with a ControlNet" if section.takes_condition else f"a {section.kind}"
        got = f"{what} whose tuning is {scenario.tuning.kind}, beside other runs"
        raise ScenarioError([f"{folder}: got {got}, expected {alone}"])
    if finished(RunFolder.reopen(folder)) is None:
        got = "a run that is not done, beside other runs"
        raise ScenarioError([f"{folder}: got {got}, expected one that is: fedray run --resume {folder}"])
    if not (folder / "model" / DIFFUSERS_FILE).is_file():
        got = f"no model/{DIFFUSERS_FILE}, as where a rule adds to the base's own weights"
        raise ScenarioError([f"{folder}: got {got}, expected {alone}"])


def _refuse_other_bases(folders: Sequence[Path], loaded: Sequence[Loaded]) -> None:
    """Raises ScenarioError for runs whose adapters were trained beside other base models."""
    shared = [_shared(folder, one) for folder, one in zip(folders, loaded, strict=True)]
    for folder, values in zip(folders[1:], shared[1:], strict=True):
        for key, value in values.items():
            if value != shared[0][key]:
                first = f"{folders[0]} with {key} {shared[0][key]}"
                got = f"{key} {value}, beside {first}"
                raise ScenarioError([f"{folder}: got {got}, expected runs over one base model"])


def _shared(folder: Path, loaded: Loaded) -> dict[str, object]:
    """What has to be the same for all adapters over one base; the base by its name and by its files.

    Raises:
        ScenarioError: for a base that is not there, or that has changed since the run.
    """
    scenario = loaded.scenario
    try:
        files = fingerprint.of_base(scenario, folder)
    except Refused as e:
        raise loaded.error([e]) from None
    before = _base_before(folder)
    if before is not None and before != files:
        got = f"{getattr(scenario.model, 'base', None)!r}, whose files are others than when the run was made"
        raise loaded.error([Refused("model.base", got, "the base model as it was")])
    values: dict[str, object] = {"model.base": f"{getattr(scenario.model, 'base', None)} ({str(files)[:12]})"}
    for key in SHARED:
        section, name = key.split(".")
        values[key] = getattr(getattr(scenario, section), name, None)
    return values


def _base_before(folder: Path) -> str | None:
    """What was in the base's files when the run's newest checkpoint was written, where there is one."""
    for _, state in RunFolder.reopen(folder).states():
        if not isinstance(state, str):
            return state.belongs.get("scenario", {}).get(fingerprint.BASE)
    return None
