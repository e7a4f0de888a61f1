"""Images by a diffusers pipeline: what a learner whose networks are one samples, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fedray.learners.bases import refuse_negative_prompt
from fedray.learners.contexts import Sampling
from fedray.learners.families.family import Conditions, Family
from fedray.learners.flops import counted_flops
from fedray.learners.latents import NoisedLatents
from fedray.learners.learner import Learner
from fedray.learners.stages import Stage, inputs, run
from fedray.scenario.base import Refused

AT_ONCE = 32  # images that are sampled in one go


class PipelineGeneration(Learner):
    """A learner whose networks are a base model of some family.

    Attributes:
        family: the networks, tokenizers and sampler.
    """

    family: Family

    @property
    def resolution(self) -> int:
        """Pixels a side."""
        return self.size

    def _blank(self, texts: Conditions) -> NoisedLatents:
        """A batch of one with these texts and nothing else in it, for counting work."""
        raise NotImplementedError(f"{type(self).__name__} has no blank batch")

    def _denoising_stages(self) -> list[Stage]:
        """From latents, noise, timesteps and conditions to what is predicted."""
        raise NotImplementedError(f"{type(self).__name__} has no stages that denoise")

    def refuse_long_prompt(self, prompt: str) -> None:
        counted = self.family.count_tokens(prompt)
        if all(tokens > most for tokens, most in counted):  # where one text encoder reads it all, it counts
            tokens, most = max(counted, key=lambda pair: pair[1])
            expected = f"at most the {most} that the text encoder reads, its own start and end among them"
            raise Refused("prompt", f"{tokens} tokens", expected)

    def pipeline(self) -> Any:
        """These networks as diffusers' pipeline, with the base's own sampler."""
        return self.family.pipeline()

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> Tensor:
        """One image a prompt. Raises Refused for a negative prompt that the base would ignore."""
        refuse_negative_prompt(self.family.files, sampling.negative_prompt)
        images = []
        at_once = sampling.at_once or AT_ONCE
        pipeline = self._sampling_pipeline()
        with self.family.text_memory.in_use():  # pipelines embed texts by themselves
            for start in range(0, len(prompts), at_once):
                some = prompts[start : start + at_once]
                with torch.no_grad(), self.evaluating(), self.autocast():
                    given = self.family.prompt_arguments(some, sampling.negative_prompt)
                given |= self._sampling_conditions(start, len(some), sampling)
                images.append(self._denoise(pipeline, given, seeds[start : start + at_once], sampling))
        return torch.cat(images)

    def _sampling_pipeline(self) -> Any:
        return self.pipeline()

    def _sampling_conditions(self, start: int, n: int, sampling: Sampling) -> dict[str, Tensor]:
        """What that pipeline is given beside texts, for n images from number `start` on."""
        return {}

    @torch.no_grad()
    def embed(self, prompt: str) -> Conditions:
        """What the denoising network takes of one text, [1, ...] each."""
        with self.evaluating(), self.autocast():
            return self.family.embed_in_chunks(self.family.tokenize([prompt]))

    @cached_property
    def _embedded_pipeline(self) -> Any:
        """For a learner whose networks stay as they are."""
        return self.family.pipeline(embeds=False)

    def sample_embedded(
        self, prompts: Conditions, negative: Conditions, seeds: Sequence[int], sampling: Sampling
    ) -> Tensor:
        """One image a prompt, all at once, of texts that are embedded already.

        Args:
            prompts: [n, ...] each.
            negative: [n, ...] each, what guidance leads away from.
            seeds: n of them.
            sampling: in how many steps, and with which guidance.
        """
        given = self.family.embedded_arguments(prompts, negative)
        return self._denoise(self._embedded_pipeline, given, seeds, sampling)

    @torch.no_grad()
    def _denoise(
        self, pipeline: Any, given: dict[str, Any], seeds: Sequence[int], sampling: Sampling
    ) -> Tensor:
        """[n, 3, h, w] in 0..1 on the CPU, by a pipeline from the texts that it is given."""
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        with self.evaluating(), self.autocast():
            out = pipeline(
                **given,
                generator=noise,
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance_scale,
                height=self.resolution,
                width=self.resolution,
                output_type="pt",
            ).images
        images: Tensor = out.float().cpu()
        return images

    @torch.no_grad()
    def sample_flops(self, sampling: Sampling) -> float:
        """With the prompt, and where guidance asks for it without: the text encoders once, the denoising
        network a step; then the decoder."""
        texts = self.family.embed(self.family.blank_tokens(1))
        batch = self._blank(texts)
        denoising = self._denoising_stages()
        network = counted_flops(lambda: run(denoising, inputs(batch)))
        text_encoders = counted_flops(lambda: self.family.embed(self.family.blank_tokens(1)))
        decoder = counted_flops(lambda: self.family.vae.decode(batch.latents))
        passes = self.family.passes(sampling.guidance_scale)
        return passes * (network * sampling.steps + text_encoders) + decoder
