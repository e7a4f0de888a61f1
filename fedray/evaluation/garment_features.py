"""`features: garments`: what a small classifier of garments sees."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedray.evaluation import judge as judges
from fedray.evaluation.features import Features
from fedray.scenario.base import Refused


class GarmentFeatures(Features):
    """64 features, before the labels are told."""

    size: ClassVar[int | None] = judges.SIZE

    def __init__(self, section: Any, place: Path | None, device: torch.device) -> None:
        super().__init__(section, place, device)
        assert place is not None
        try:
            self.judge = judges.load(place)
        except (OSError, ValueError) as e:
            raise Refused("evaluation.features.judge", str(e), "a judge's safetensors file") from None

    def features(self, images: Tensor) -> Tensor:
        return judges.look(self.judge, images.float() / 255)[0]
