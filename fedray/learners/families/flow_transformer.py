"""What the families have in common whose network is a transformer trained by flow matching, with T5 beside
CLIP: Stable Diffusion 3 and Flux."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedray.learners.families.family import Family
from fedray.learners.families.flow_noise import FlowNoise

TEXT_ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]
TEXT = [*TEXT_ATTENTION, "fc1", "fc2"]


class FlowTransformer(Family):
    """The last tokenizer is T5's.

    Attributes:
        logit_normal: how timesteps are drawn.
        longest: how many tokens T5 reads of a text at most, as in the family's pipeline.
        noise: what it is trained with.
    """

    logit_normal: ClassVar[bool]
    longest: ClassVar[int]
    noise: FlowNoise

    def noise_of(self, config: Mapping[str, Any]) -> FlowNoise:
        return FlowNoise(config, self.logit_normal)

    def scaled(self, latents: Tensor) -> Tensor:
        config = self.vae.config
        return (latents - config.shift_factor) * config.scaling_factor

    def lengths(self) -> list[int]:
        """T5's is what the family's pipeline gives it, or less where the base's tokenizer says so."""
        clips = [encoder.config.max_position_embeddings for encoder in self.text_encoders[:-1]]
        return [*clips, min(self.longest, self._tokenizer_limit(list(self.files.tokenizers)[-1]))]

    def _tokenizer_limit(self, name: str) -> int:
        """A tokenizer's model_max_length, from its file where it is not loaded."""
        if self.tokenizers:
            return int(self.tokenizers[name].model_max_length)
        folder = self.base.configuration
        file = None if folder is None else folder / name / "tokenizer_config.json"
        if file is None or not file.is_file():
            return self.longest
        return int(json.loads(file.read_text(encoding="utf-8")).get("model_max_length", self.longest))

    def embed_t5(self, ids: Tensor) -> Tensor:
        """[b, l, d] of token ids [b, l]. In the dtype of its weights, as fp16 overflows in it."""
        encoder = self.text_encoders[-1]
        on_meta = self.device.type == "meta"  # which has no autocast
        with nullcontext() if on_meta else torch.autocast(self.device.type, enabled=False):
            hidden: Tensor = encoder(ids)[0]
        return hidden

    def prompt_arguments(self, prompts: Sequence[str], negative: str) -> dict[str, Any]:
        """Embedded, as in training: the pipeline would let fp16 into T5."""
        texts = self.embed(self.tokenize(prompts))
        return self.embedded_arguments(texts, self.embed(self.tokenize([negative] * len(prompts))))

    def adapter_key(self, part: str, name: str) -> str:
        """Text encoders by the prefix that they had before transformers 5.6, which all readers know."""
        if part.startswith("text_encoder") and not name.startswith("text_model."):
            name = "text_model." + name
        return super().adapter_key(part, name)

    def kohya_tensors(self, adapter: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
        """None: ComfyUI reads diffusers' file of these families, whose keys begin with `transformer.`."""
        return {}

    def text_targets(self) -> dict[str, list[str]]:
        """The layers of CLIP's text encoders that kohya-ss's adapters have."""
        return dict.fromkeys(self.trainable[1:], TEXT)
