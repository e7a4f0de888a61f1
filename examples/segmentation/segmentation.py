"""A network, a loss and a metric of one's own: a small U-Net segments images, from folders of images and
masks."""

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

import fedray


class MaskedImages(fedray.Source):
    class Section(fedray.Source.Section):
        path: fedray.FilePath = Field(description="Has train and test, each with images and their masks.")

    def open(self, split: str) -> fedray.DatasetSamples:
        folder = self.folder / self.section.path / split
        names = sorted(file.name for file in (folder / "images").iterdir())
        images = [Image.open(folder / "images" / name).convert("RGB") for name in names]
        masks = [Image.open(folder / "masks" / name).convert("L") for name in names]
        return fedray.DatasetSamples(list(zip(images, [0] * len(images), masks, strict=True)), ["image"])


class UNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.outer = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2))
        self.last = nn.Conv2d(2 * width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        outer = self.outer(images)
        return self.last(torch.cat([outer, self.inner(outer)], dim=1))


class Segmenter(fedray.Learner):
    class Section(fedray.Learner.Section):
        resolution: int = Field(description="Pixels a side.")

    def __init__(self, section: Section, context: fedray.LearnerContext) -> None:
        super().__init__(section, context)
        self.network = UNet(width=8)
        self.parts = {"network": self.network}

    def encode(self, samples: fedray.DatasetSamples, indices: np.ndarray) -> Tensor:
        masks = [samples.dataset[i][2].resize((self.size, self.size)) for i in indices]
        pixels = np.concatenate([samples.pixels(indices, self.size), np.stack(masks)[:, None]], axis=1)
        return torch.tensor(pixels, device=self.device) / 255  # [n, 4, h, w]: red, green, blue and mask

    def blank_shard(self, n: int) -> Tensor:
        return torch.zeros(n, 4, self.size, self.size, device=self.device)

    def loss(self, batch: Tensor) -> Tensor:
        p, masks = self.network(batch[:, :3]).sigmoid(), batch[:, 3:]
        return 1 - 2 * (p * masks).sum() / (p + masks).sum()  # Dice (Milletari et al. 2016)

    def metrics(self, batch: Tensor) -> dict[str, float]:
        predicted, masks = self.network(batch[:, :3]) > 0, batch[:, 3:] > 0.5
        return {"eval_iou": float((predicted & masks).sum() / (predicted | masks).sum())}
