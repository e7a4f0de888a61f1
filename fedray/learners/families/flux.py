"""Flux.1 (Black Forest Labs 2024): a transformer that takes T5's tokens and, with the timestep, CLIP's pooled
text. Dev has guidance distilled into it and takes its scale as a number; schnell takes none."""

from typing import Any, ClassVar

from torch import Tensor

from fedray.learners import flux_transformer
from fedray.learners.families.family import Conditions
from fedray.learners.families.flow_transformer import FlowTransformer
from fedray.learners.stages import Stage

# of diffusers' train_dreambooth_lora_flux.py; `attn` of single blocks has no to_out
TARGETS = [
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
]
SINGLE = ["proj_mlp", "proj_out"]
GUIDANCE = 3.5  # in training, as in diffusers' script


class Flux(FlowTransformer):
    tokens: ClassVar[tuple[str, ...]] = ("text", "text_2")
    conditions: ClassVar[tuple[str, ...]] = ("text", "pooled")
    logit_normal: ClassVar[bool] = False
    longest: ClassVar[int] = 512

    @property
    def sides(self) -> int:
        """Latents are packed by 2 x 2."""
        return 2 * self.latent_factor

    @property
    def resolution(self) -> int:
        """The transformer's configuration does not say it."""
        return int(self.vae.config.sample_size)

    def passes(self, guidance_scale: float) -> int:
        """Guidance is a number that the network takes."""
        return 1

    def _embed(self, ids: Conditions) -> Conditions:
        """`text` [b, l, d]: T5's last hidden state; `pooled` [b, p]: CLIP's state at the end of the text."""
        pooled: Tensor = self.parts["text_encoder"](ids["text"]).pooler_output
        return {"text": self.embed_t5(ids["text_2"]).to(pooled.dtype), "pooled": pooled}

    def embedded_arguments(self, prompts: Conditions, negative: Conditions) -> dict[str, Any]:
        """Nothing is led away from: guidance is distilled into the network."""
        return super().embedded_arguments(prompts, {})

    def denoising_stages(self, side: int) -> list[Stage]:
        return flux_transformer.stages(self.denoiser, self.noise.add, self.noise.time, side, GUIDANCE)

    def adapter_targets(self, chosen: str) -> dict[str, list[str]]:
        if chosen == "kohya":
            return {"transformer": [*TARGETS, *SINGLE]} | self.text_targets()
        return {"transformer": TARGETS}
