"""`fedray generate`: images, or texts, from a run, finished or in progress, and from its base model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from fedray.data.decode import opened
from fedray.image_files import save_image, side_by_side, slug, writing
from fedray.learners.contexts import Sampling
from fedray.learners.generation import BETWEEN
from fedray.learners.sheets import picture
from fedray.runs import reader
from fedray.runs.folder import RunFolder, first_free
from fedray.scenario import Loaded, Scenario, ScenarioError
from fedray.scenario.base import Refused
from fedray.trained_models import default_device, trained, untrained

BASE = "base model"
RUN = "this run"


def generate(
    folder: Path,
    prompts: Sequence[str],
    out: Path | None = None,
    num: int = 1,
    seed: int = 0,
    guidance: float | None = None,
    steps: int | None = None,
    negative: str | None = None,
    compare: bool = False,
    condition: Path | None = None,
) -> list[dict[str, Any]]:
    """Writes a grid, single files, or one file of texts, and gives a row each: model, prompt, seed, file, and
    of a text the text. What is None is as in the run's own evaluation.

    Args:
        folder: the run's.
        prompts: one an image, or several; none for a model that takes none.
        out: a PNG file for a grid, a folder for single files; None: under the run's `generated/`.
        num: images or texts a prompt.
        seed: of a prompt's first one; the others count up.
        guidance: how much an image follows its prompt.
        steps: of the sampler, or tokens of a text.
        negative: what not to show.
        compare: make the base model's too, from the same draws.
        condition: a picture that images follow, of a run with a ControlNet; None: the run's examples.

    Raises:
        ScenarioError: where the folder holds no run, a run without a whole checkpoint, or files that are not
            a run's.
    """
    run = RunFolder.reopen(folder)
    loaded = reader.scenario(run.path)
    scenario = loaded.scenario
    writes = _writes_texts(scenario, folder, guidance is not None or negative is not None)
    prompts = _prompts(scenario, folder, prompts)
    sampling = replace(
        _sampling(scenario, guidance, steps, negative), condition=_condition(scenario, folder, condition)
    )
    out = _place(run, out, prompts[0], writes)
    seeds = [seed + i for _ in prompts for i in range(num)]
    prompts = [p for p in prompts for _ in range(num)]
    try:
        made = _made(scenario, run, prompts, seeds, sampling, compare)
    except Refused as e:
        raise _refusal(loaded, e, negative) from None
    each = [
        ({"model": model, "prompt": p, "seed": s, "file": str(out)}, one)
        for model, some in made.items()
        for p, s, one in zip(prompts, seeds, some, strict=True)
    ]
    if writes:
        return _save_texts(each, out)
    facts = _facts(sampling, run) | {"size": f"{made[RUN].shape[-1]}x{made[RUN].shape[-2]}"}
    if out.suffix.lower() != ".png":
        return _save_each(each, out, len(prompts), facts)
    image = picture(made[RUN][0]) if len(each) == 1 else side_by_side(made, num)
    save_image(image, out, [row for row, _ in each], facts)
    return [row for row, _ in each]


def _refusal(loaded: Loaded, refused: Refused, negative: str | None) -> ScenarioError:
    """What is refused, by the run's file and line, or by the option `negative` that asked for it."""
    if negative and refused.key == "evaluation.negative_prompt":
        return ScenarioError([f"--negative: got {refused.got}, expected {refused.expected}"])
    return loaded.error([refused])


def _made(
    scenario: Scenario,
    run: RunFolder,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    compare: bool,
) -> dict[str, Any]:
    """Images or texts, one a prompt, by the name of the model that made them.

    Args:
        scenario: the run's.
        run: whose model it is.
        prompts: n of them.
        seeds: n of them.
        sampling: in how many steps, and how.
        compare: make the base model's too.
    """
    device = default_device()
    made: dict[str, Any] = {}
    if compare:
        made[BASE] = untrained(scenario, run, device).sample(prompts, seeds, sampling)
    named = [scenario.tuning.named(p) for p in prompts]  # which an exported model does not know
    made[RUN] = trained(scenario, run, device).sample(named, seeds, sampling)
    return made


def _place(run: RunFolder, out: Path | None, prompt: str, writes: bool) -> Path:
    """Where the result goes.

    Args:
        run: whose model it is.
        out: as a user says; None: under the run's `generated/`.
        prompt: the first.
        writes: whether the model generates texts.
    """
    if out is not None and not (writes and out.is_dir()):
        return out
    return first_free(out or run.path / "generated", slug(prompt), ".txt" if writes else ".png")


def _facts(sampling: Sampling, run: RunFolder) -> dict[str, Any]:
    """What an image's file says of how it was made."""
    return {
        "negative_prompt": sampling.negative_prompt,
        "steps": sampling.steps,
        "guidance_scale": sampling.guidance_scale,
        "run": run.path.name,
    }


def _sampling(
    scenario: Scenario, guidance: float | None, steps: int | None, negative: str | None
) -> Sampling:
    """As the run's own evaluation samples, but for what is given.

    Args:
        scenario: the run's.
        guidance: how much an image follows its prompt.
        steps: of the sampler, or tokens of a text.
        negative: what not to show.

    Raises:
        ScenarioError: for a negative prompt that the model would ignore.
    """
    if negative and not scenario.model.takes_negative_prompt:
        got = f"{negative!r:.60} for a {scenario.model.kind}"
        raise ScenarioError([f"--negative: got {got}, expected none"])
    evaluation = scenario.evaluation
    sampling = replace(
        Sampling.of(evaluation),
        guidance_scale=evaluation.guidance_scale if guidance is None else guidance,
        negative_prompt=evaluation.negative_prompt if negative is None else negative,
    )
    if not steps:
        return sampling
    if scenario.model.generates == "texts":
        return replace(sampling, new_tokens=steps)
    return replace(sampling, steps=steps)


def _writes_texts(scenario: Scenario, folder: Path, of_images: bool) -> bool:
    """Whether the run's model generates texts, not images.

    Args:
        scenario: the run's.
        folder: the run's, for errors.
        of_images: whether options are given that only images have.

    Raises:
        ScenarioError: for a sweep, a model that generates nothing, and options that it does not have.
    """
    if scenario.sweep:
        variants = ", ".join(str(folder / name) for name in scenario.sweep.variants)
        raise ScenarioError([f"{folder}: got a sweep, expected one of its runs: {variants}"])
    section = scenario.model
    if section.generates is None:
        expected = "the run of a model that generates images or texts"
        raise ScenarioError([f"{folder}: got a {section.kind}, expected {expected}"])
    writes = section.generates == "texts"
    if writes and of_images:
        got = "--guidance or --negative for a model that writes"
        raise ScenarioError([f"{folder}: got {got}, expected --steps alone"])
    return writes


def _prompts(scenario: Scenario, folder: Path, prompts: Sequence[str]) -> Sequence[str]:
    """The prompts given; an empty one for a model that takes none. Raises ScenarioError where a model that
    takes prompts has none, or one that takes none has some."""
    section = scenario.model
    if not section.takes_prompts and not prompts:
        return [""]
    if section.takes_prompts and prompts:
        return prompts
    got = f"{'prompts' if prompts else 'no prompt'} for a {section.kind}"
    expected = "none: its images come from noise alone" if prompts else "--prompt"
    raise ScenarioError([f"{folder}: got {got}, expected {expected}"])


def _condition(scenario: Scenario, folder: Path, file: Path | None) -> Image.Image | None:
    """The picture that images shall follow; None: the run's own examples, or nothing where they follow none.

    Args:
        scenario: the run's.
        folder: the run's, for errors.
        file: the picture's.

    Raises:
        ScenarioError: for a picture that cannot be read, one for a model that follows none, and none for a
            model that follows one but has no examples.
    """
    section = scenario.model
    if file is None:
        if section.needs_condition:
            got = "no condition for a run with a ControlNet and without model.control.examples"
            raise ScenarioError([f"{folder}: got {got}, expected --condition FILE"])
        return None
    if not section.takes_condition:
        got = f"--condition for a {section.kind} without a ControlNet"
        raise ScenarioError([f"{folder}: got {got}, expected none"])
    try:
        return opened(file)
    except ValueError as e:
        raise ScenarioError([f"--condition: got {e}, expected a picture"]) from None


def _save_texts(each: Sequence[tuple[dict[str, Any], str]], file: Path) -> list[dict[str, Any]]:
    """One file of all texts; gives their rows, each with its text."""
    with writing(file):
        file.write_text(BETWEEN.join(text for _, text in each) + "\n", encoding="utf-8")
    return [row | {"text": text} for row, text in each]


def _save_each(
    each: Sequence[tuple[dict[str, Any], Any]], folder: Path, prompts: int, facts: dict[str, Any]
) -> list[dict[str, Any]]:
    """A file an image, whose name goes into its row; gives the rows.

    Args:
        each: rows with their images.
        folder: where the files go.
        prompts: images of one model.
        facts: of all.
    """
    for i, (row, image) in enumerate(each):
        base = "-base" * (row["model"] == BASE)
        name = f"{i % prompts:03d}-{slug(row['prompt'])}-seed{row['seed']}{base}.png"
        row["file"] = str(folder / name)
        save_image(picture(image), folder / name, [row], facts)
    return [row for row, _ in each]
