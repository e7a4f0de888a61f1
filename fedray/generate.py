"""`fedray generate`: images, or texts, from a run, finished or in progress, and from its base model beside them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fedray.check import check
from fedray.evaluation.evaluate import BETWEEN, picture, sheet
from fedray.executors import Job
from fedray.executors.model import Model
from fedray.executors.server import ServerWork
from fedray.learners.learners import load
from fedray.parameters import DTYPES
from fedray.runs.folder import RunFolder, first_free
from fedray.scenario import Scenario, ScenarioError
from fedray.scenario.model import Transformer

BASE, RUN = "base model", "this run"


def generate(
    folder: Path, prompts: Sequence[str], out: Path | None = None, num: int = 1, seed: int = 0, guidance: float | None = None,
    steps: int | None = None, negative: str | None = None, compare: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Writes a grid where `out` is a PNG file, single files where it is a folder, and gives a row an image: model,
    prompt, seed, file; or one file of texts, with each text in its row. Without `out`, an image, a grid or the texts under the
    run's `generated/`. Of a prompt's `num`, `seed` is the first one's; `compare`: the base model too, from the same draws. None:
    as the run's own evaluation; of texts `steps` are tokens.

    Raises:
        ScenarioError: where the folder holds no run, or a run without a whole checkpoint.
    """
    run = RunFolder.reopen(folder)
    scenario = check(run.path / "scenario.resolved.yaml").scenario
    if scenario.sweep:
        ours = ", ".join(str(folder / name) for name in scenario.sweep.variants)
        raise ScenarioError([f"{folder}: got a sweep, expected one of its runs: {ours}"])
    writes = isinstance(scenario.model, Transformer) and scenario.model.writes
    if scenario.model.kind != "text_to_image" and not writes:
        raise ScenarioError([f"{folder}: got a {scenario.model.kind}, expected the run of a model that generates from prompts"])
    if writes and (guidance is not None or negative is not None):
        raise ScenarioError([f"{folder}: got --guidance or --negative for a model that writes, expected --steps alone"])
    evaluation = scenario.evaluation
    steps = steps or (evaluation.new_tokens if writes else evaluation.inference_steps)
    guidance = evaluation.guidance_scale if guidance is None else guidance
    negative = evaluation.negative_prompt if negative is None else negative
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if out is None or (writes and out.is_dir()):
        out = first_free(out or run.path / "generated", _slug(prompts[0]), ".txt" if writes else ".png")
    prompts, seeds = [p for p in prompts for _ in range(num)], [seed + i for _ in prompts for i in range(num)]

    asked: tuple[Any, ...] = (prompts, seeds, steps, *((evaluation.temperature,) if writes else (guidance, negative)))
    made: dict[str, Any] = {BASE: _base(scenario, run.path, device).sample(*asked)} if compare else {}
    made[RUN] = _learnt(scenario, run, device).sample(*asked)
    each: list[tuple[dict[str, Any], Any]] = []
    for who, some in made.items():
        each += [({"model": who, "prompt": p, "seed": s, "file": str(out)}, x) for p, s, x in zip(prompts, seeds, some, strict=True)]
    rows = [row for row, _ in each]
    if writes:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(BETWEEN.join(text for _, text in each) + "\n", encoding="utf-8")
        return [row | {"text": text} for row, text in each]
    facts = {"negative_prompt": negative, "steps": steps, "guidance_scale": guidance, "run": run.path.name}
    if out.suffix.lower() == ".png":
        _save(_side_by_side(made, num), out, rows, facts)
        return rows
    for i, (row, image) in enumerate(each):
        name = f"{i % len(prompts):03d}-{_slug(row['prompt'])}-seed{row['seed']}{'-base' * (row['model'] == BASE)}.png"
        row["file"] = str(out / name)
        _save(picture(image), out / name, [row], facts)
    return rows


def _learnt(scenario: Scenario, run: RunFolder, device: torch.device) -> Any:
    """The result where there is one, otherwise what the newest whole checkpoint holds."""
    if scenario.model.kind == "text_to_image" and run.read("result.json") is not None and (run.path / "model").is_dir():
        return _base(scenario.model_copy(update={"model": scenario.model.model_copy(update={"base": "model"})}), run.path, device)
    job = Job(scenario, run.path)
    model, server = Model(job, device), ServerWork(job)
    for folder, state in run.states():
        if not isinstance(state, str):
            try:
                model.receive(*server.restore(model.flat.layout, folder, state.saved))
                return model.learner
            except ValueError:
                continue
    raise ScenarioError([f"{run.path}: got a run without a whole checkpoint, expected one that has trained a round"])


def _base(scenario: Scenario, folder: Path, device: torch.device) -> Any:
    return load(scenario, folder, device, DTYPES[scenario.training.precision])


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
