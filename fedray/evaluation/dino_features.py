"""`features: dino`: the class token of DINOv2 (Oquab et al. 2024)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedray.evaluation.features import Features
from fedray.evaluation.pretrained import opened


class DinoFeatures(Features):
    def __init__(self, section: Any, place: Path | None, device: torch.device) -> None:
        super().__init__(section, place, device)
        self.network = opened("Dinov2Model", place, device)
        self.processor = opened("AutoImageProcessor", place)

    def features(self, images: Tensor) -> Tensor:
        pixels = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        token: Tensor = self.network(pixel_values=pixels.to(self.device)).pooler_output
        return token
