"""`fedray generate`: images from a run, finished or in progress, and from its base model beside them."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fedray.check import check
from fedray.evaluation.evaluate import picture, sheet
from fedray.executors import Job
from fedray.executors.model import Model
from fedray.executors.server import ServerWork
from fedray.learners.learner import load
from fedray.learners.text_to_image import TextToImage
from fedray.parameters import DTYPES
from fedray.runs.folder import RunFolder, first_free
from fedray.scenario import Scenario, ScenarioError

BASE, RUN = "base model", "this run"


@dataclass(frozen=True)
class Request:
    """What to generate. None: as the run's own evaluation."""

    prompts: Sequence[str]
    num: int = 1  # images a prompt
    seed: int = 0  # of a prompt's first image; the others count up from it
    guidance: float | None = None
    steps: int | None = None
    negative: str | None = None
    compare: bool = False  # the base model too, from the same noise


def generate(folder: Path, request: Request, out: Path | None = None) -> list[dict[str, Any]]:
    """Writes a grid where `out` is a PNG file, single files where it is a folder, and gives a row an image: model,
    prompt, seed, file. Without `out`, one image or a grid under the run's `generated/`.

    Raises:
        ScenarioError: where the folder holds no run, or a run without a whole checkpoint.
    """
    run = RunFolder.reopen(folder)
    scenario = check(run.path / "scenario.resolved.yaml").scenario
    if scenario.sweep:
        ours = ", ".join(str(folder / name) for name in scenario.sweep.variants)
        raise ScenarioError([f"{folder}: got a sweep, expected one of its runs: {ours}"])
    if scenario.model.kind != "text_to_image":
        raise ScenarioError([f"{folder}: got a {scenario.model.kind}, expected the run of a model that generates images from prompts"])
    evaluation = scenario.evaluation
    steps = request.steps or evaluation.inference_steps
    guidance = evaluation.guidance_scale if request.guidance is None else request.guidance
    negative = evaluation.negative_prompt if request.negative is None else request.negative
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prompts = [p for p in request.prompts for _ in range(request.num)]
    seeds = [request.seed + i for _ in request.prompts for i in range(request.num)]

    learners = {BASE: lambda: _base(scenario, run.path, device)} if request.compare else {}
    learners[RUN] = lambda: _learnt(scenario, run, device)
    made: dict[str, Tensor] = {who: learner().sample(prompts, seeds, steps, guidance, negative) for who, learner in learners.items()}

    out = out or first_free(run.path / "generated", _slug(request.prompts[0]), ".png")
    facts = {"negative_prompt": negative, "steps": steps, "guidance_scale": guidance, "run": run.path.name}
    if out.suffix.lower() == ".png":
        rows = [{"model": who, "prompt": p, "seed": s, "file": str(out)} for who in made for p, s in zip(prompts, seeds, strict=True)]
        _save(_side_by_side(made, request.num), out, rows, facts)
        return rows
    rows = []
    for who, images in made.items():
        for i, (prompt, seed, image) in enumerate(zip(prompts, seeds, images, strict=True)):
            name = f"{i:03d}-{_slug(prompt)}-seed{seed}{'-base' * (who == BASE)}.png"
            rows.append({"model": who, "prompt": prompt, "seed": seed, "file": str(out / name)})
            _save(picture(image), out / name, rows[-1:], facts)
    return rows


def _learnt(scenario: Scenario, run: RunFolder, device: torch.device) -> TextToImage:
    """The result where there is one, otherwise what the newest whole checkpoint holds."""
    if run.read("result.json") is not None and (run.path / "model").is_dir():
        return _base(scenario.model_copy(update={"model": scenario.model.model_copy(update={"base": "model"})}), run.path, device)
    job = Job(scenario, run.path)
    model, server = Model(job, device), ServerWork(job)
    for folder, state in run.states():
        if not isinstance(state, str):
            try:
                model.receive(*server.restore(model.flat.layout, folder, state.saved))
                return cast(TextToImage, model.learner)
            except ValueError:
                continue
    raise ScenarioError([f"{run.path}: got a run without a whole checkpoint, expected one that has trained a round"])


def _base(scenario: Scenario, folder: Path, device: torch.device) -> TextToImage:
    return cast(TextToImage, load(scenario, folder, device, DTYPES[scenario.training.precision]))


def _side_by_side(made: dict[str, Tensor], columns: int) -> Image.Image:
    """A block a model, a row a prompt; the blocks are named where there are two."""
    blocks = {who: sheet(images, columns) for who, images in made.items()}
    if len(blocks) == 1:
        return next(iter(blocks.values()))
    gap, header = 24, 34
    height = max(b.height for b in blocks.values())
    page = Image.new("RGB", (sum(b.width for b in blocks.values()) + gap * (len(blocks) - 1), height + header), "white")
    draw, left = ImageDraw.Draw(page), 0
    for who, block in blocks.items():
        draw.text((left + block.width / 2, header / 2), who, fill="#333333", font=ImageFont.load_default(18), anchor="mm")
        page.paste(block, (left, header))
        left += block.width + gap
    return page


def _save(image: Image.Image, file: Path, rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> None:
    """A PNG that knows where it came from: `parameters` as A1111 and ComfyUI read it, `fedray` for programs."""
    first = rows[0]
    text = f"{first['prompt']}\nNegative prompt: {facts['negative_prompt']}\n" if facts["negative_prompt"] else f"{first['prompt']}\n"
    text += f"Steps: {facts['steps']}, CFG scale: {facts['guidance_scale']:g}, Seed: {first['seed']}, Size: {image.width}x{image.height}"
    info = PngInfo()
    info.add_itxt("parameters", text)
    info.add_itxt("prompt", "\n".join(dict.fromkeys(row["prompt"] for row in rows)))
    info.add_itxt("fedray", json.dumps({**facts, "images": [{k: row[k] for k in ("model", "prompt", "seed")} for row in rows]}))
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, pnginfo=info)


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40] or "image"
