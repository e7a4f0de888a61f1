"""text_to_image with a ControlNet (Zhang et al. 2023): the base is frozen, and what trains makes its pictures
follow the edges of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedray.data import Samples
from fedray.learners import controlnet as controlnets
from fedray.learners.bases import examples
from fedray.learners.contexts import EvaluationContext, LearnerContext, Sampling
from fedray.learners.edges import agreement, edges
from fedray.learners.families.family import Conditions
from fedray.learners.latents import NoisedLatents
from fedray.learners.learner import Learner
from fedray.learners.pictures import square_pixels
from fedray.learners.stages import Stage
from fedray.learners.text_to_image import TextToImage
from fedray.scenario.control import PART, Control
from fedray.scenario.text_to_image import TextToImage as Section

MOST_EXAMPLES = 32  # on which the agreement of edges is measured


@dataclass
class Examples:
    """What k samples follow."""

    edges: Tensor  # [k, 3, size, size], of the examples' pictures
    conditions: Tensor  # [k, 3, size, size]: these edges, or condition pictures of their own
    captions: list[str]


class Controlled(TextToImage):
    """A base model with a ControlNet, which alone trains."""

    def __init__(self, section: Section, context: LearnerContext) -> None:
        super().__init__(section, context)
        self.parts = self.family.parts | {PART: self.controlnet}

    @property
    def control(self) -> Control:
        control: Control = self.section.control
        return control

    @cached_property
    def controlnet(self) -> Any:
        """In the dtype that is computed in, as the base."""
        return controlnets.build(self.control, self.family)

    @property
    def tunable_parts(self) -> list[str]:
        return [PART]

    def refuse_tuning(self) -> None:
        controlnets.refuse_blind(self.controlnet, self.family)

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        super().prepare_training(gradient_checkpointing)
        self.controlnet.train()
        if gradient_checkpointing:
            self.controlnet.enable_gradient_checkpointing()

    def _blank(self, texts: Conditions) -> NoisedLatents:
        condition = torch.zeros(1, 3, self.size, self.size, device=self.device)
        return replace(super()._blank(texts), condition=condition)

    def _denoising_stages(self) -> list[Stage]:
        return controlnets.with_control(super()._denoising_stages(), self.controlnet, self.family.noise.add)

    def _condition(self, samples: Samples, i: int, pixels: Tensor) -> Tensor:
        """The edges of sample i, or the condition picture that it has, [3, size, size]."""
        if self.control.column is not None:
            pixels = square_pixels(samples.condition(i), self.resolution).to(self.device)
        return self._followed(pixels)

    def _followed(self, pixels: Tensor) -> Tensor:
        """What the ControlNet takes of a condition picture [3, size, size]: where edges are the condition,
        those of the picture, otherwise the picture as it is."""
        return pixels if self.control.column is not None else self._edges(pixels[None])[0]

    def _edges(self, pictures: Tensor) -> Tensor:
        return edges(pictures, self.control.edge_threshold)

    # Adapters

    def adapter_targets(self, chosen: str | Sequence[str]) -> dict[str, list[str]]:
        """The layers of the base's U-Net by the same name, the ControlNet's outputs, and those that embed the
        condition."""
        if isinstance(chosen, str):
            chosen = self.family.adapter_targets(chosen)[self.family.trainable[0]]
        return {PART: controlnets.adapter_targets(self.controlnet, chosen)}

    def adapter_files(
        self, adapter: Mapping[str, Tensor], scale: float, alpha: float
    ) -> dict[str, dict[str, Tensor]]:
        """diffusers' file alone: kohya-ss's names have no ControlNet."""
        return Learner.adapter_files(self, adapter, scale, alpha)

    # Samples

    @cached_property
    def _examples(self) -> Examples | None:
        """What samples follow; None where the scenario names nothing."""
        pictures = examples(self.control, self.context.folder)
        if pictures is None:
            return None
        n = min(len(pictures), MOST_EXAMPLES)
        pixels = [square_pixels(pictures.image(i), self.resolution).to(self.device) for i in range(n)]
        conditions = torch.stack([self._condition(pictures, i, p) for i, p in enumerate(pixels)])
        return Examples(self._edges(torch.stack(pixels)), conditions, list(pictures.captions[:n]))

    def _sampling_pipeline(self) -> Any:
        return controlnets.pipeline(self.family, self.controlnet)

    def _sampling_conditions(self, start: int, n: int, sampling: Sampling) -> dict[str, Tensor]:
        """The condition that is given; otherwise image i follows example i, from the first again after the
        last; without examples, an empty drawing."""
        if sampling.condition is not None:
            conditions = self._followed(square_pixels(sampling.condition, self.resolution).to(self.device))[
                None
            ]
        elif self._examples is None:
            conditions = torch.zeros(1, 3, self.size, self.size, device=self.device)
        else:
            conditions = self._examples.conditions
        return {"image": conditions[torch.arange(start, start + n, device=self.device) % len(conditions)]}

    def evaluate(self, context: EvaluationContext) -> dict[str, float]:
        """And, where there are examples, how far the edges of pictures that follow them agree with the edges
        of their example, and with those of the next picture's."""
        metrics = super().evaluate(context)
        if self._examples is None:
            return metrics
        captions = self._examples.captions
        made = self.sample(captions, context.seeds(len(captions), "edges"), context.sampling)
        found = self._edges(made)
        own = self._examples.edges.cpu()
        return metrics | {
            "eval_edge_agreement": round(agreement(found, own), 6),
            "eval_edge_agreement_others": round(agreement(found, own.roll(1, 0)), 6),
        }

    def save(self, folder: Path) -> None:
        """The base's whole pipeline, and the ControlNet in a folder of its own beside its parts."""
        super().save(folder)
        self.controlnet.save_pretrained(folder / PART, safe_serialization=True)
