"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022): a U-Net and one CLIP. 2.x differs in its files alone:
OpenCLIP's text encoder, of which they hold all but the last layer, and a prediction of the velocity."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from fedray.learners import unet as unets
from fedray.learners.families.family import Conditions, Family, kohya_named
from fedray.learners.stages import Stage

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
KOHYA_UNET = [*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
KOHYA_TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


class StableDiffusion(Family):
    tokens: ClassVar[tuple[str, ...]] = ("text",)
    conditions: ClassVar[tuple[str, ...]] = ("text",)

    def _embed(self, ids: Conditions) -> Conditions:
        """`text` [b, l, d]: the text encoder's last hidden state."""
        return {"text": self.parts["text_encoder"](ids["text"])[0]}

    @property
    def bucket_step(self) -> int:
        halves = sum(bool(block.downsamplers) for block in self.parts["unet"].down_blocks)
        return int(self.latent_factor * 2**halves)

    def denoising_stages(self, side: int) -> list[Stage]:
        first = ("latents", "noise", "timesteps")
        return unets.stages(self.parts["unet"], first, self.noise.add, side)

    def pipeline_options(self) -> dict[str, Any]:
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    def adapter_targets(self, chosen: str) -> dict[str, list[str]]:
        if chosen == "kohya":
            return {"unet": KOHYA_UNET, "text_encoder": KOHYA_TEXT}
        return {"unet": ATTENTION}

    def adapter_key(self, part: str, name: str) -> str:
        """As peft names it, the text encoder by the prefix it had before transformers 5.6, which new readers
        know too. (The names diffusers' own conversion would give are mixed for these targets, `.lora.down`
        beside `.lora_A`, and its reader then leaves out the U-Net's attention.)"""
        if part == "text_encoder" and not name.startswith("text_model."):
            name = "text_model." + name
        return super().adapter_key(part, name)

    def kohya_tensors(self, adapter: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
        return kohya_named(adapter, alpha, {"unet": "lora_unet_", "text_encoder": "lora_te_"})
