"""What a learner generates, where it does."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from fedray.data import DatasetInfo, Samples
from fedray.files import write_whole
from fedray.learners.contexts import EvaluationContext, Sampling
from fedray.learners.sheets import write_sheet

ROWS = 4  # of a grid without prompts
BETWEEN = "\n---\n"  # texts in a file


class Generation:
    """The part of a learner that generates; its section says what: `generates` images, texts or nothing.

    Attributes:
        section: the scenario's `model`.
    """

    section: Any

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling
    ) -> Tensor | Sequence[str]:
        """What its section says that it generates, one a prompt (an empty one where it takes none): images
        [n, 3, h, w] in 0..1 on the CPU, or texts.

        Args:
            prompts: n of them.
            seeds: n of them; each sample comes from its own, whatever its neighbours.
            sampling: in how many steps, and how.
        """
        raise NotImplementedError(f"{type(self).__name__} generates nothing")

    def sample_flops(self, sampling: Sampling) -> float:
        """Floating-point operations of sampling one image. To be called on the meta device."""
        raise NotImplementedError(f"{type(self).__name__} does not say what a sample costs")

    def usual_prompts(self) -> list[str]:
        """A prompt for each row of a grid, where a scenario names none: empty ones, that nothing reads."""
        return [""] * ROWS

    @classmethod
    def refuse_prompts(cls, section: Any, prompts: Sequence[str], dataset: DatasetInfo) -> None:
        """Raises Refused for a prompt from which it cannot generate images or texts like those of
        `dataset`."""

    def refuse_long_prompt(self, prompt: str) -> None:
        """Raises Refused for a prompt of more tokens than the model reads."""

    def prompts_of(self, samples: Samples, indices: np.ndarray) -> list[str]:
        """A prompt for images that are to be compared with each of these samples. Here: its caption."""
        return [samples.captions[int(i)] for i in indices]

    def write_samples(self, context: EvaluationContext) -> None:
        """Samples of the scenario's prompts from fixed noise: images as a grid, a row a prompt, or texts one
        after another. Without prompts nothing, but for a learner of images that takes none."""
        section = self.section
        evaluation = context.section
        prompts = list(evaluation.prompts)
        if not prompts and section.shows_samples:
            prompts = self.usual_prompts()
        if section.generates is None or not prompts:
            return
        columns = evaluation.images_per_prompt if section.generates == "images" else 1
        prompts = [prompt for prompt in prompts for _ in range(columns)]
        made = self.sample(prompts, context.seeds(len(prompts), "grid"), context.sampling)
        context.sheet.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(made, Tensor):
            write_sheet(made, columns, context.sheet)
        else:
            write_whole(context.sheet.with_suffix(".txt"), BETWEEN.join(made) + "\n")
