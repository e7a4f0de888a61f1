"""What painting costs beside the bare pipeline: a table with ratios, on whatever machine this is.

    uv run python tools/bench_paint.py [--pictures 100] [--steps 20] [--generator tiny-sd]

1. Pictures a second of augmentation's painter, of ten labels in batches of 50, beside diffusers' StableDiffusionPipeline
   called with the same prompts, batches and steps, in turns.                     At least 0.90 of the bare pipeline's.
2. A second round of painting in the same process, where model and prompts are there already, beside the first with loading.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from fedray.augmentation.painter import Painter
from fedray.data.fashion_mnist import LABELS
from fedray.data.samples import Form
from fedray.learners.bases import locate
from fedray.randomness import SERVER
from fedray.scenario.augmentation import Augmentation

BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--generator", default="tiny-sd")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    start = time.perf_counter()
    section = Augmentation(
        generator=arguments.generator, inference_steps=arguments.steps, per_class=arguments.pictures // 10,
        at_most=arguments.pictures * arguments.rounds, batch_size=BATCH, guidance_scale=3.0,
    )  # fmt: skip
    painter = Painter(section, Path(), Form(1, 28, LABELS), 0, device)
    labels = np.tile(np.arange(10), section.at_most)
    painter.paint(SERVER, labels[: arguments.pictures])
    first = time.perf_counter() - start
    bare = StableDiffusionPipeline.from_pretrained(locate(arguments.generator, Path()).source, safety_checker=None).to(device)
    bare.set_progress_bar_config(disable=True)
    prompts = [painter.prompt(SERVER, i, int(labels[i])) for i in range(arguments.pictures)]
    pairs = []
    for t in range(1, arguments.rounds):
        start = time.perf_counter()
        painter.paint(SERVER, labels[: arguments.pictures * (t + 1)])
        ours = time.perf_counter() - start
        start = time.perf_counter()
        for i in range(0, len(prompts), BATCH):
            some = prompts[i : i + BATCH]
            noise = [torch.Generator().manual_seed(i + j) for j in range(len(some))]
            size = {"height": painter.learner.resolution, "width": painter.learner.resolution}
            bare(some, generator=noise, num_inference_steps=arguments.steps, guidance_scale=3.0, output_type="np", **size)
        pairs.append((ours, time.perf_counter() - start))
    rates = [arguments.pictures / statistics.median(p[i] for p in pairs) for i in (0, 1)]
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"{'':<44}{'bare pipeline':>16}{'fedray':>12}{'ratio':>8}")
    print(f"{'pictures a second':<44}{rates[1]:>16.2f}{rates[0]:>12.2f}{ratio:>8.2f}   at least 0.90")
    again = statistics.median(a for a, _ in pairs)
    print(f"{'first round with loading, later rounds':<44}{first:>14.2f} s{again:>10.2f} s{again / first:>8.2f}")


if __name__ == "__main__":
    main()
