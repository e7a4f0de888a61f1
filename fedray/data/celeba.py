"""CelebA (Liu et al. 2015), aligned and cropped, in torchvision's layout."""

import os
from pathlib import Path

import numpy as np

from fedray.data.samples import Files, Split, fetched
from fedray.errors import reason
from fedray.scenario.base import Refused
from fedray.scenario.data import CelebA

PARTS = {"train": "0", "test": "2"}  # in list_eval_partition.txt


def there(data: CelebA, folder: Path) -> bool:
    return all(place.exists() for place in _places(data, folder))


def label_names(data: CelebA) -> tuple[str, str]:
    word = data.attribute.replace("_", " ").lower()
    return f"not {word}", word


def read(data: CelebA, folder: Path, split: Split) -> Files:
    """Raises Refused where its files are not there, or say something else than they should."""
    root, (parts, attributes, images) = folder / data.path, _places(data, folder)

    def fetch() -> None:
        from torchvision.datasets import CelebA as Download

        Download(str(root), download=True)

    advice = f"torchvision's layout in it: celeba/{images.name}/, {parts.name}, {attributes.name}"
    fetched(root, data, lambda: there(data, folder), fetch, advice)
    names = _named(parts, images, PARTS[split])
    try:
        _, header, *lines = attributes.read_text("utf-8-sig").splitlines()
        known = header.split()
        column = known.index(data.attribute) + 1 if data.attribute in known else 0
        has = {cells[0]: int(cells[column] == "1") for line in lines if (cells := line.split())}
        labels = np.array([has[name] for name in names], np.int64)
    except (OSError, ValueError, IndexError, KeyError) as e:
        raise Refused(
            "data.path", f"{parts.parent}, whose lists cannot be read: {reason(e)}", "whole files of CelebA"
        ) from None
    if not column:
        raise Refused("data.attribute", repr(data.attribute), f"one of {', '.join(known)}")
    names_of = label_names(data)
    captions = [f"a photo of a face, {names_of[k]}" for k in labels]
    return Files([images / name for name in names], captions, [""] * len(names), labels, names_of)


def _named(parts: Path, images: Path, part: str) -> list[str]:
    """The images of a part, in the order of their lines; raises Refused for a line whose image is not
    there."""
    whole = "whole files of CelebA"
    try:
        lines = parts.read_text("utf-8-sig").splitlines()
        there = set(os.listdir(images))  # names alone: nothing that a line says leads out of the folder
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
        if cells[0] not in there:
            raise Refused(
                "data.path", f"{parts}:{number}: {cells[0][:60]!r}, which is missing in {images}", whole
            )
        names[cells[0]] = None
    if not names:
        raise Refused("data.path", f"{parts} without images of part {part}", whole)
    return list(names)


def _places(data: CelebA, folder: Path) -> tuple[Path, Path, Path]:
    place = folder / data.path / "celeba"
    return place / "list_eval_partition.txt", place / "list_attr_celeba.txt", place / "img_align_celeba"
