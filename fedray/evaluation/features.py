"""The base class of what sees features in images, and those that a scenario asks for."""

from abc import ABC, abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedray.evaluation import feature_files
from fedray.scenario.features import FeaturesSection
from fedray.scenario.kinds import implementation

KEPT = 4  # networks that stay in memory from one evaluation to the next
AT_ONCE = 64  # images that a network sees in one go


class Features(ABC):
    """Images as points, between which FID, KID, precision and recall are measured. For example mean colours:

        class MeanColours(fedray.Features):
            def features(self, images):
                return images.float().mean((2, 3))

    Metrics are called after the class: `eval_meancolours_fid` and so on.

    Args:
        section: what the scenario says of it.
        place: the file or folder of its weights, where its section says how they are located.
        device: where images are looked at.

    Attributes:
        size: pixels a side that images have before they are rounded to 8 bits; None: as they are generated,
            and real ones in that size.
    """

    Section: ClassVar[type[FeaturesSection]] = FeaturesSection
    size: ClassVar[int | None] = None

    def __init__(self, section: Any, place: Path | None, device: torch.device) -> None:
        self.section = section
        self.place = place
        self.device = device

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """[n, d] of images uint8 [n, 3, h, w], both on the CPU."""

    def score(self, images: Tensor, texts: list[str]) -> Tensor:
        """How well each text fits its image [n], 0 to 100, where the section `reads_texts`.

        Args:
            images: uint8 [n, 3, h, w].
            texts: n of them.
        """
        raise NotImplementedError(f"{type(self).__name__} reads no texts")

    @torch.inference_mode()
    def in_chunks(self, images: Tensor) -> Tensor:
        """[n, d] fp32 of images uint8 [n, 3, h, w], looked at a few at a time.

        Raises:
            ValueError: for features that are none.
        """
        seen = torch.cat([self.features(chunk) for chunk in images.split(AT_ONCE)]).cpu().float()
        if seen.ndim != 2 or len(seen) != len(images) or not seen.isfinite().all():
            got = f"{list(seen.shape)}" if seen.isfinite().all() else "numbers that are not finite"
            raise ValueError(f"{type(self).__name__}: got {got} of {len(images)} images, expected [n, d]")
        return seen


def open_features(section: FeaturesSection, folder: Path, device: torch.device) -> Features:
    """With its weights, of which a few stay in memory.

    Args:
        section: of `evaluation.features`.
        folder: where its relative paths start.
        device: where images are looked at.

    Raises:
        Refused: where its files are missing, or none of such a network.
    """
    place = feature_files.locate(section, folder)
    stamp = () if place is None else feature_files.stamp(place)
    return _open(_Key(section), place, stamp, device)


def refuse_unreadable(section: FeaturesSection, folder: Path) -> None:
    """Raises Refused where its files are missing, or none of such a network. Nothing stays in memory."""
    implementation(section)(section, feature_files.locate(section, folder), torch.device("cpu"))


class _Key:
    """A section by what it says."""

    def __init__(self, section: FeaturesSection) -> None:
        self.section = section
        self.text = section.model_dump_json()

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.text == other.text


@lru_cache(maxsize=KEPT)
def _open(key: _Key, place: Path | None, stamp: tuple[Any, ...], device: torch.device) -> Features:
    made: Features = implementation(key.section)(key.section, place, device)
    return made
