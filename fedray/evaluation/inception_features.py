"""`features: inception`: the 2048 features that FID is usually computed in (Heusel et al. 2017)."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedray.evaluation.features import Features
from fedray.scenario.base import Refused

LAYER = "2048"


class InceptionFeatures(Features):
    """torch-fidelity's Inception-v3, which resizes images to 299 x 299 as TensorFlow 1 did."""

    def __init__(self, section: Any, place: Path | None, device: torch.device) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        super().__init__(section, place, device)
        assert place is not None
        key = "evaluation.features.weights"
        try:
            torch.load(place, weights_only=True, mmap=True)  # which runs no code that a file brings
            network: Any = FeatureExtractorInceptionV3("inception-v3-compat", [LAYER], str(place))
        except (OSError, RuntimeError, pickle.UnpicklingError, ValueError) as e:
            got = f"{place}, which is none ({str(e).splitlines()[0][:80]})"
            raise Refused(key, got, "torch-fidelity's weights of Inception-v3") from None
        self.network = network.to(device)

    def features(self, images: Tensor) -> Tensor:
        seen: Tensor = self.network(images.to(self.device))[0]
        return seen.flatten(1)
