"""`features: clip`: embeddings of CLIP (Radford et al. 2021), and how well a prompt fits an image (Hessel et
al. 2021)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fedray.evaluation.features import Features
from fedray.evaluation.pretrained import opened


class ClipFeatures(Features):
    def __init__(self, section: Any, place: Path | None, device: torch.device) -> None:
        super().__init__(section, place, device)
        self.network = opened("CLIPModel", place, device)
        self.processor = opened("CLIPProcessor", place)

    def features(self, images: Tensor) -> Tensor:
        """The image's embedding, of whatever length it has."""
        pixels = self.processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        pooled = self.network.vision_model(pixel_values=pixels.to(self.device)).pooler_output
        embedding: Tensor = self.network.visual_projection(pooled)
        return embedding

    @torch.inference_mode()
    def score(self, images: Tensor, texts: list[str]) -> Tensor:
        """max(100 cos(image, text), 0) [n]: CLIP-S with a factor of 100 in place of 2.5."""
        seen = F.normalize(self.in_chunks(images), dim=1)
        longest = self.network.config.text_config.max_position_embeddings
        different = list(dict.fromkeys(texts))
        read = self.processor.tokenizer(
            different, padding=True, truncation=True, max_length=longest, return_tensors="pt"
        ).to(self.device)
        pooled = self.network.text_model(**read).pooler_output
        meant = F.normalize(self.network.text_projection(pooled).cpu().float(), dim=1)
        places = torch.tensor([different.index(text) for text in texts])
        return (100 * (seen * meant[places]).sum(1)).clamp(min=0)
