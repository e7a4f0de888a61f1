"""What painting costs beside the bare pipeline: a table with ratios, on whatever machine this is.

    uv run python tools/bench_paint.py [--pictures 100] [--steps 20] [--generator tiny-sd]

1. Pictures a second of the image generator of augmentation, of ten labels in batches of 50, beside diffusers'
StableDiffusionPipeline
   called with the same prompts, batches and steps, in turns.                     At least 0.90 of the bare pipeline's.
2. A second round of painting in the same process, where model and prompts are there already, beside the first
with loading. 3. The turns of a round's clients on one host of one thread while the server paints, beside the
same turns while it does not,
   in turns. There is room for both where there are two cores.                    Ratio near 1.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import ray
import torch
from bench_parallel import NETWORK
from diffusers import StableDiffusionPipeline

from fedray.augmentation.image_generator import ImageGenerator
from fedray.checks import check
from fedray.data import DatasetInfo
from fedray.data.clients import holdings
from fedray.data.fashion_mnist import LABELS
from fedray.executors import Job
from fedray.executors.ray.executor import RayExecutor
from fedray.learners.bases import locate
from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from fedray.planning.shared import shared
from fedray.randomness import SERVER
from fedray.scenario.augmentation import Augmentation

BATCH = 50
SCENARIO = (
    """
name: bench
topology: {{kind: parallel}}
population: {{clients: 4}}
data: {{kind: fashion_mnist_mini, partition: {{kind: iid}}}}
model: {{kind: classifier, network: cnn}}
tuning: {{kind: full}}
training: {{rounds: 100, local_epochs: 8, batch_size: 64, optimizer: {{kind: sgd, learning_rate: 0.05}}}}
augmentation: {{per_class: 10, at_most: 1000, guidance_scale: 3.0, weighting: {{kind: fixed, kappa_1: {first}, kappa_2: {second}}}}}
runtime: {{actors: 1}}
"""
    + NETWORK
)


class Round:
    """The rounds of GenFL, or of FL alone, on one host."""

    def __init__(self, folder: Path, first: float, second: float) -> None:
        file = folder / f"bench-{second}.yaml"
        file.write_text(SCENARIO.format(first=first, second=second))
        self.scenario, self.t = check(file).scenario, 0
        self.known = shared(self.scenario, *holdings(self.scenario, folder))
        self.executor, self.radio = RayExecutor(Job(self.scenario, folder)), Radio(self.scenario.network)
        self.executor.begin(self.known)

    def turns_s(self) -> float:
        """Seconds until the last client's report."""
        self.t += 1
        start, last = time.perf_counter(), 0.0
        for report in self.executor.run_round(schedule_round(self.scenario, self.radio, self.t, self.known)):
            if report.client != SERVER:
                last = time.perf_counter() - start
        return last


def beside_painting(rounds: int) -> None:
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        alone, beside = Round(Path(folder), 1, 0), Round(Path(folder), 0.5, 0.5)
        pairs = [(alone.turns_s(), beside.turns_s()) for _ in range(rounds + 2)][2:]
    ray.shutdown()
    plain, ours = (statistics.median(p[i] for p in pairs) for i in (0, 1))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"{'clients turns: alone, while the server paints':<44}{plain:>14.2f} s{ours:>10.2f} s{ratio:>8.2f}  "
        " near 1"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    generator = ImageGenerator(section, Path(), DatasetInfo(1, 28, LABELS), 0, device)
    labels = np.tile(np.arange(10), section.at_most)
    generator.generate(SERVER, labels[: arguments.pictures])
    first = time.perf_counter() - start
    bare = StableDiffusionPipeline.from_pretrained(
        locate(arguments.generator, Path()).source, safety_checker=None
    ).to(device)
    bare.set_progress_bar_config(disable=True)
    prompts = [generator.prompt(SERVER, i, int(labels[i])) for i in range(arguments.pictures)]
    pairs = []
    for t in range(1, arguments.rounds):
        start = time.perf_counter()
        generator.generate(SERVER, labels[: arguments.pictures * (t + 1)])
        ours = time.perf_counter() - start
        start = time.perf_counter()
        for i in range(0, len(prompts), BATCH):
            some = prompts[i : i + BATCH]
            noise = [torch.Generator().manual_seed(i + j) for j in range(len(some))]
            size = {"height": generator.learner.resolution, "width": generator.learner.resolution}
            bare(
                some,
                generator=noise,
                num_inference_steps=arguments.steps,
                guidance_scale=3.0,
                output_type="np",
                **size,
            )
        pairs.append((ours, time.perf_counter() - start))
    rates = [arguments.pictures / statistics.median(p[i] for p in pairs) for i in (0, 1)]
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"{'':<44}{'bare pipeline':>16}{'fedray':>12}{'ratio':>8}")
    print(f"{'pictures a second':<44}{rates[1]:>16.2f}{rates[0]:>12.2f}{ratio:>8.2f}   at least 0.90")
    again = statistics.median(a for a, _ in pairs)
    print(
        f"{'first round with loading, later rounds':<44}{first:>14.2f} s{again:>10.2f} s{again / first:>8.2f}"
    )
    del generator, bare
    beside_painting(arguments.rounds)


if __name__ == "__main__":
    main()
