"""CelebA (Liu et al. 2015), aligned and cropped, in torchvision's layout."""

import os
from pathlib import Path

import numpy as np

from fedray.data.downloads import DownloadedSource
from fedray.data.samples import DatasetInfo, Files, Split
from fedray.errors import reason
from fedray.scenario.base import Refused
from fedray.scenario.data import CelebA

PARTS = {"train": "0", "test": "2"}  # in list_eval_partition.txt


class CelebASource(DownloadedSource):
    """The aligned and cropped faces, labelled by one attribute."""

    section: CelebA
    training_samples = 162_770

    def __init__(self, section: CelebA, folder: Path) -> None:
        super().__init__(section, folder)
        place = self.root / "celeba"
        self.parts = place / "list_eval_partition.txt"
        self.attributes = place / "list_attr_celeba.txt"
        self.images = place / "img_align_celeba"

    def open(self, split: Split) -> Files:
        self.ensure(split)
        names = _images_of(self.parts, self.images, PARTS[split])
        labels = self._labels(names)
        label_names = self._label_names()
        captions = [f"a photo of a face, {label_names[k]}" for k in labels]
        return Files([self.images / name for name in names], captions, [""] * len(names), labels, label_names)

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo(3, None, self._label_names())

    @property
    def advice(self) -> str:
        names = f"celeba/{self.images.name}/, {self.parts.name}, {self.attributes.name}"
        return f"torchvision's layout in it: {names}"

    def is_complete(self, split: Split) -> bool:
        return all(place.exists() for place in (self.parts, self.attributes, self.images))

    def download(self) -> None:
        from torchvision.datasets import CelebA as Download

        Download(str(self.root), download=True)

    def _label_names(self) -> tuple[str, str]:
        attribute = self.section.attribute.replace("_", " ").lower()
        return f"not {attribute}", attribute

    def _labels(self, names: list[str]) -> np.ndarray:
        """int64 [n]: whether each image has the attribute; raises Refused where no list says so."""
        attribute = self.section.attribute
        try:
            _, header, *lines = self.attributes.read_text("utf-8-sig").splitlines()
            known = header.split()
            column = known.index(attribute) + 1 if attribute in known else 0
            has = {cells[0]: int(cells[column] == "1") for line in lines if (cells := line.split())}
            labels = np.array([has[name] for name in names], np.int64)
        except (OSError, ValueError, IndexError, KeyError) as e:
            got = f"{self.parts.parent}, whose lists cannot be read: {reason(e)}"
            raise Refused("data.path", got, "whole files of CelebA") from None
        if not column:
            raise Refused("data.attribute", repr(attribute), f"one of {', '.join(known)}")
        return labels


def _images_of(parts: Path, images: Path, part: str) -> list[str]:
    """The images of a part, in the order of their lines; raises Refused for a line whose image is not
    there."""
    whole = "whole files of CelebA"
    try:
        lines = parts.read_text("utf-8-sig").splitlines()
        present = set(os.listdir(images))  # names alone: nothing that a line says leads out of the folder
    except (OSError, UnicodeDecodeError) as e:
        raise Refused(
            "data.path", f"{parts.parent}, whose lists cannot be read: {reason(e)}", whole
        ) from None
    names: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != 2 or cells[1] not in ("0", "1", "2"):
            raise Refused(
                "data.path",
                f"{parts}:{number}: {line[:60]!r}",
                f"an image and its part, 0, 1 or 2, of {whole}",
            )
        if cells[0] in names:
            raise Refused("data.path", f"{parts}:{number}: {cells[0][:60]!r} a second time", whole)
        if cells[1] != part:
            continue
        if cells[0] not in present:
            raise Refused(
                "data.path", f"{parts}:{number}: {cells[0][:60]!r}, which is missing in {images}", whole
            )
        names[cells[0]] = None
    if not names:
        raise Refused("data.path", f"{parts} without images of part {part}", whole)
    return list(names)
