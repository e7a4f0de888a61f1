"""SDXL (Podell et al. 2023): a U-Net that takes the tokens of two CLIPs side by side and, with the timestep,
the second one's pooled text and an image's size and crop."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedray.learners import unet as unets
from fedray.learners.families.family import Conditions, kohya_named
from fedray.learners.families.stable_diffusion import KOHYA_TEXT, StableDiffusion
from fedray.learners.stages import Stage


class StableDiffusionXL(StableDiffusion):
    tokens: ClassVar[tuple[str, ...]] = ("text", "text_2")
    conditions: ClassVar[tuple[str, ...]] = ("text", "pooled")

    def _embed(self, ids: Conditions) -> Conditions:
        """`text` [b, l, d + d_2]: the last hidden states but one of both text encoders; `pooled` [b, p]: the
        second one's projected text. Those of an empty caption are zeros where the base says so, as its
        pipeline makes them."""
        first = self.parts["text_encoder"](ids["text"], output_hidden_states=True)
        second = self.parts["text_encoder_2"](ids["text_2"], output_hidden_states=True)
        text = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        pooled = second.text_embeds
        if self.zeros_for_empty and self.tokenizers:
            written = ids["text"][:, 1] != self.tokenizers["tokenizer"].eos_token_id
            text = text * written[:, None, None]
            pooled = pooled * written[:, None]
        return {"text": text, "pooled": pooled}

    @property
    def zeros_for_empty(self) -> bool:
        return bool(self.index.get("force_zeros_for_empty_prompt", True))

    def image_conditions(
        self,
        sizes: Sequence[tuple[int, int]],
        resolution: int,
        shape: tuple[int, int] | None = None,
        padded: bool = False,
    ) -> Conditions:
        """`time_ids` [n, 6]: height and width before, top and left of the crop, height and width after
        (Podell et al. 2023, Sec. 2.2).

        Args:
            sizes: width and height of each before it was scaled and cut.
            resolution: pixels a side afterwards.
            shape: width and height afterwards, where they are no squares.
            padded: whether they were padded, so that nothing is cut.
        """
        rows = []
        wide, high = shape or (resolution, resolution)
        for width, height in sizes:
            scale = min(wide / width, high / height) if padded else max(wide / width, high / height)
            top = max(0, round((height * scale - high) / 2))
            left = max(0, round((width * scale - wide) / 2))
            rows.append([height, width, top, left, high, wide])
        return {"time_ids": torch.tensor(rows, dtype=torch.float32, device=self.device)}

    def denoising_stages(self, side: int) -> list[Stage]:
        first = ("latents", "noise", "timesteps")
        return unets.stages(self.parts["unet"], first, self.noise.add, side, ("pooled", "time_ids"))

    def prompt_arguments(self, prompts: Sequence[str], negative: str) -> dict[str, Any]:
        """Where nothing is to be led away from, the pipeline takes the base's own empty text."""
        given = super().prompt_arguments(prompts, negative)
        return given if negative else {"prompt": given["prompt"]}

    def pipeline_options(self) -> dict[str, Any]:
        return {"force_zeros_for_empty_prompt": self.zeros_for_empty, "add_watermarker": False}

    def adapter_targets(self, chosen: str) -> dict[str, list[str]]:
        targets = super().adapter_targets(chosen)
        return targets | ({"text_encoder_2": KOHYA_TEXT} if chosen == "kohya" else {})

    def kohya_tensors(self, adapter: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
        stems = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
        return kohya_named(adapter, alpha, stems)
