"""A judge: a small classifier of garments. Its features measure style, its verdicts whether a garment is one
still.

Trained by tools/train_judges.py. No diffusers here: a judge knows nothing about where an image came from.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from fedray import shipped
from fedray.scenario.base import Refused

SIZE = 32  # pixels, height and width
FEATURES = 64
CHUNK = 256  # images looked at in one go


class GarmentJudge(nn.Module):
    """Four convolutions down to 4 x 4, then 64 features. Knows its labels, and the sha256 of the file it came
    from."""

    def __init__(self, labels: list[str], sha256: str = "") -> None:
        super().__init__()
        self.labels = labels
        self.sha256 = sha256
        self.body = nn.Sequential(
            _step(3, 24, stride=2),
            _step(24, 48),
            nn.MaxPool2d(2),
            _step(48, 64),
            nn.MaxPool2d(2),
            _step(64, 96),
            nn.Flatten(),
        )
        self.features = nn.Sequential(nn.Linear(96 * (SIZE // 8) ** 2, FEATURES), nn.ReLU())
        self.head = nn.Linear(FEATURES, len(labels))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, 64] and logits [N, labels] of images [N, 3, 32, 32] in 0..1."""
        features = self.features(self.body(images * 2 - 1))
        return features, self.head(features)


def load(path: Path) -> GarmentJudge:
    """A judge in evaluation mode, fp32, on the CPU.

    Raises:
        ValueError: for a file that is no judge.
    """
    data = path.read_bytes()
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if "labels" not in metadata:
            raise ValueError("its metadata name no labels")
        judge = GarmentJudge(json.loads(metadata["labels"]), hashlib.sha256(data).hexdigest())
        judge.load_state_dict(safetensors.torch.load(data))
        if broken := [name for name, t in judge.state_dict().items() if not t.isfinite().all()]:
            raise ValueError(f"its {broken[0]} has numbers that are not finite")
    except (safetensors.SafetensorError, ValueError, RuntimeError) as e:
        raise ValueError(f"{path} is no judge of garments: {str(e).splitlines()[0]}") from None
    return judge.eval().requires_grad_(False)


def open_judge(path: str, folder: Path, key: str) -> GarmentJudge:
    """The judge that a scenario's `key` names.

    Raises:
        Refused: where that is no judge's file.
    """
    try:
        return load(shipped.resolve(path, folder))
    except (OSError, ValueError) as e:
        raise Refused(key, str(e), "a judge's safetensors file") from None


def resized(images: Tensor, size: int = SIZE) -> Tensor:
    """[n, 3, size, size], by default what judges know, of images [n, 3, h, w] in 0..1."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(
        0, 1
    )


def as_tensor(image: Image.Image, size: int = SIZE) -> Tensor:
    """[3, size, size] in 0..1, by default what judges know."""
    pixels = np.array(image.resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@torch.inference_mode()
def look(judge: GarmentJudge, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features [N, 64] and probabilities [N, labels] of images [N, 3, 32, 32] in 0..1, on the CPU."""
    if images.shape[1:] != (3, SIZE, SIZE):
        raise ValueError(f"a judge looks at images [N, 3, {SIZE}, {SIZE}], not {list(images.shape)}")
    device = next(judge.parameters()).device
    seen = [judge(chunk.to(device, torch.float32)) for chunk in images.split(CHUNK)]
    return torch.cat([f for f, _ in seen]).cpu(), torch.cat([logits.softmax(1) for _, logits in seen]).cpu()


def _step(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )
