"""Measures a small Stable Diffusion's quality against denoising steps, by a shipped judge.

    uv run python tools/measure_quality.py --base fedray/shipped/tiny-sd

Garments prompted as photos, at each number of steps: the share that the judge recognises, and their distance
from as many real photos in its features (classifier-FID). What it prints goes into fedray/serving/quality.py, as
the curve that `quality: {kind: curve, name: tiny_sd}` names.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import garments
import torch
from diffusers import StableDiffusionPipeline

from fedray.evaluation import judge as judges
from fedray.evaluation import quality

STEPS = (1, 2, 3, 4, 5, 10, 20, 40)
BATCH = 100


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", type=Path, default=Path("fedray/shipped/tiny-sd"))
    p.add_argument("--judge", type=Path, default=Path("fedray/shipped/garments-photo.safetensors"))
    p.add_argument("--guidance", type=float, default=7.5)
    p.add_argument("--per-class", type=int, default=20)
    p.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--sheet", type=Path, help="a row of pictures for each number of steps is written here")
    a = p.parse_args()
    torch.set_num_threads(1)
    judge = judges.load(a.judge)
    pipe = StableDiffusionPipeline.from_pretrained(a.base, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    real = real_photos(judge.labels, a.per_class)
    rows = []
    curve = {}
    for steps in a.steps:
        began = time.monotonic()
        images, wanted = paint(pipe, judge.labels, steps, a)
        _, probabilities = judges.look(judge, judges.resized(images))
        recognised = (probabilities.argmax(1) == wanted).float().mean().item()
        distance = quality.measure(judge, real, judges.resized(images), a.seed)["eval_classifier_fid"]
        curve[steps] = (round(recognised, 3), round(distance, 2))
        rows.append(images[:: a.per_class // 2][:20])
        print(
            f"{steps} steps: {recognised:.1%} of {len(images)}, FID {distance:.2f}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    if a.sheet:
        garments.sheet(rows).save(a.sheet)
    print(json.dumps(curve))


def real_photos(labels: list[str], per_class: int) -> torch.Tensor:
    """Photos [n, 3, 32, 32] of real test garments, equally many of each label."""
    grey, numbers, _ = garments.load("test")
    chosen = torch.cat([torch.nonzero(numbers == k)[:per_class, 0] for k in range(len(labels))])
    return garments.photo(grey[chosen])


def paint(pipe, labels: list[str], steps: int, a) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [n, 3, 32, 32] of every label in turn, from the same noise at any number of steps, and their
    labels [n]."""
    wanted = torch.arange(len(labels)).repeat_interleave(a.per_class)
    captions = [garments.caption(int(k)) for k in wanted]
    g = torch.Generator().manual_seed(a.seed)
    options = {
        "num_inference_steps": steps,
        "guidance_scale": a.guidance,
        "generator": g,
        "output_type": "pt",
    }
    parts = [pipe(captions[i : i + BATCH], **options).images.float() for i in range(0, len(captions), BATCH)]
    return torch.cat(parts), wanted


if __name__ == "__main__":
    main()
