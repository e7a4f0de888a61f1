"""The image files that `fedray generate` writes."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fedray.learners.sheets import sheet
from fedray.scenario import ScenarioError


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Makes the file's folder. Raises ScenarioError where it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as e:
        raise ScenarioError(
            [f"{file}: got a file that cannot be written ({e.strerror or e}), expected another place"]
        ) from None


def side_by_side(made: Mapping[str, Tensor], columns: int) -> Image.Image:
    """A block a model, a row a prompt; the blocks are named where there are two."""
    blocks = {model: sheet(images, columns) for model, images in made.items()}
    if len(blocks) == 1:
        return next(iter(blocks.values()))
    gap = 24
    header = 34
    height = max(b.height for b in blocks.values())
    page = Image.new(
        "RGB", (sum(b.width for b in blocks.values()) + gap * (len(blocks) - 1), height + header), "white"
    )
    draw = ImageDraw.Draw(page)
    left = 0
    for model, block in blocks.items():
        draw.text(
            (left + block.width / 2, header / 2),
            model,
            fill="#333333",
            font=ImageFont.load_default(18),
            anchor="mm",
        )
        page.paste(block, (left, header))
        left += block.width + gap
    return page


def save_image(image: Image.Image, file: Path, rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> None:
    """A PNG file that knows where it came from, as `described` says.

    Args:
        image: one, or a grid of several.
        file: where it goes.
        rows: model, prompt and seed of each image.
        facts: of all: negative prompt, steps, guidance, size and run.
    """
    with writing(file):
        image.save(file, format="PNG", pnginfo=described(rows, facts))


def described(rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> PngInfo:
    """What a PNG says of how it was made: `parameters` as A1111 and ComfyUI read it, with the size of one
    image; `fedray` for programs. Arguments are those of `save_image`."""
    first = rows[0]
    text = (
        f"{first['prompt']}\nNegative prompt: {facts['negative_prompt']}\n"
        if facts["negative_prompt"]
        else f"{first['prompt']}\n"
    )
    text += (
        f"Steps: {facts['steps']}, CFG scale: {facts['guidance_scale']:g}, Seed: {first['seed']}, Size:"
        f" {facts['size']}"
    )
    info = PngInfo()
    info.add_itxt("parameters", text)
    info.add_itxt("prompt", "\n".join(dict.fromkeys(row["prompt"] for row in rows)))
    info.add_itxt(
        "fedray",
        json.dumps({**facts, "images": [{k: row[k] for k in ("model", "prompt", "seed")} for row in rows]}),
    )
    return info


def slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40] or "image"
