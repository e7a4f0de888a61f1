"""Changes of images at random while they are trained on."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from fedray.scenario import augment as sections
from fedray.scenario.base import Refused


class Augment(ABC):
    """A change of images at random. One of one's own that darkens each image by up to a half:

        class Darken(fedray.Augment):
            def change(self, images, generator):
                factors = 1 - torch.rand(len(images), generator=generator) / 2
                return (images * factors.to(images.device)[:, None, None, None]).to(torch.uint8)

    Args:
        section: the scenario's, of `data.augment`.
        channels: of the images, 1 or 3.
        size: of the images, pixels a side.
    """

    Section: ClassVar[type[sections.AugmentSection]] = sections.AugmentSection

    def __init__(self, section: Any, channels: int, size: int) -> None:
        self.section = section
        self.channels = channels
        self.size = size

    @abstractmethod
    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images as they are trained on in one step, uint8 [b, c, h, w] as they came.

        Args:
            images: uint8 [b, c, h, w], on any device; to be left as they are.
            generator: every draw comes from it, on the CPU: the same on every device.
        """

    def mirrored(self, n: int, generator: torch.Generator) -> Tensor:
        """Which of n images become their mirror images, bool [n] on the CPU; of a Section that `mirrors`."""
        raise NotImplementedError(f"{type(self).__name__} says not which images it mirrors")


class Transformed(Augment):
    """One that a transform of torchvision.transforms.v2 makes of each image."""

    @property
    @abstractmethod
    def transform(self) -> Callable[[Tensor], Tensor]:
        """Of an image [c, h, w]; it draws from torch's default generator, as torchvision's transforms do."""

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        transform = self.transform
        seed = int(torch.randint(2**62, (1,), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            return torch.stack([transform(image) for image in images])


class Flip(Augment):
    section: sections.Flip

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        mirrored = self.mirrored(len(images), generator).to(images.device)
        return torch.where(mirrored[:, None, None, None], F.horizontal_flip(images), images)

    def mirrored(self, n: int, generator: torch.Generator) -> Tensor:
        """Which of n images become their mirror images, bool [n] on the CPU."""
        return torch.rand(n, generator=generator) < self.section.probability


class Crop(Augment):
    section: sections.Crop

    def __init__(self, section: Any, channels: int, size: int) -> None:
        super().__init__(section, channels, size)
        if section.padding >= size:
            raise Refused("data.augment", f"crop with padding {section.padding}", f"less than {size} pixels")

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        b, c, h, w = images.shape
        padding = self.section.padding
        if self.section.fill == "reflect":
            padded = F.pad(images, [padding] * 4, padding_mode="reflect")
        else:
            padded = F.pad(images, [padding] * 4, fill=self.section.fill)
        corners = torch.randint(2 * padding + 1, (2, b), generator=generator)
        image = torch.arange(b)[:, None, None, None]
        channel = torch.arange(c)[:, None, None]
        rows = (corners[0, :, None] + torch.arange(h))[:, None, :, None]
        columns = (corners[1, :, None] + torch.arange(w))[:, None, None, :]
        return padded[tuple(index.to(images.device) for index in (image, channel, rows, columns))]


class ResizeCrop(Transformed):
    section: sections.ResizeCrop

    @property
    def transform(self) -> Callable[[Tensor], Tensor]:
        section = self.section
        scale = (section.scale[0], section.scale[1])
        ratio = (section.ratio[0], section.ratio[1])
        return v2.RandomResizedCrop(self.size, scale, ratio, antialias=True)


class Rotate(Transformed):
    section: sections.Rotate

    @property
    def transform(self) -> Callable[[Tensor], Tensor]:
        section = self.section
        return v2.RandomRotation(section.degrees, v2.InterpolationMode.BILINEAR, fill=section.fill)


class ColorJitter(Transformed):
    section: sections.ColorJitter

    def __init__(self, section: Any, channels: int, size: int) -> None:
        super().__init__(section, channels, size)
        if channels == 1 and (section.saturation or section.hue):
            got = "saturation or hue of grey images"
            raise Refused("data.augment", got, "brightness and contrast alone, or images in colour")

    @property
    def transform(self) -> Callable[[Tensor], Tensor]:
        section = self.section
        return v2.ColorJitter(section.brightness, section.contrast, section.saturation, section.hue)
