"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): a transformer that takes the tokens of two CLIPs side by
side with T5's behind them and, with the timestep, both CLIPs' pooled text."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fedray.learners import sd3_transformer
from fedray.learners.families.family import Conditions
from fedray.learners.families.flow_transformer import FlowTransformer
from fedray.learners.stages import Stage

# of diffusers' train_dreambooth_lora_sd3.py; the last block has no to_add_out
ATTENTION = [
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
]
FEED_FORWARD = ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"]


class StableDiffusion3(FlowTransformer):
    tokens: ClassVar[tuple[str, ...]] = ("text", "text_2", "text_3")
    conditions: ClassVar[tuple[str, ...]] = ("text", "pooled")
    logit_normal: ClassVar[bool] = True
    longest: ClassVar[int] = 256

    @property
    def sides(self) -> int:
        return self.latent_factor * int(self.denoiser.config.patch_size)

    def _embed(self, ids: Conditions) -> Conditions:
        """`text` [b, l + l_3, d]: the last hidden states but one of both CLIPs, with zeros up to T5's width,
        and T5's last; `pooled` [b, p + p_2]: both CLIPs' projected text."""
        first = self.parts["text_encoder"](ids["text"], output_hidden_states=True)
        second = self.parts["text_encoder_2"](ids["text_2"], output_hidden_states=True)
        clips = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        t5: Tensor = self.embed_t5(ids["text_3"]).to(clips.dtype)
        padded = F.pad(clips, (0, t5.shape[-1] - clips.shape[-1]))
        pooled = torch.cat([first.text_embeds, second.text_embeds], -1)
        return {"text": torch.cat([padded, t5], 1), "pooled": pooled}

    def denoising_stages(self, side: int) -> list[Stage]:
        return sd3_transformer.stages(self.denoiser, self.noise.add, self.noise.time)

    def adapter_targets(self, chosen: str) -> dict[str, list[str]]:
        if chosen == "kohya":
            return {"transformer": [*ATTENTION, *FEED_FORWARD]} | self.text_targets()
        return {"transformer": ATTENTION}
