"""Texts: files in UTF-8, cut into samples of equally many tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
from PIL import Image

from fedray.data.named_files import named_files
from fedray.data.places import located
from fedray.data.samples import DatasetInfo, Samples, Split
from fedray.data.source import Source
from fedray.data.tokenizer import train
from fedray.errors import reason
from fedray.scenario.base import Refused
from fedray.scenario.data import Text

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, eq=False)
class Texts(Samples):
    """Samples of text; a label is a file's number."""

    blocks: np.ndarray  # int32 [n, length]
    labels: np.ndarray  # int64 [n]
    label_names: Sequence[str]  # files, without .txt
    folders: Sequence[str]  # the first folder of each file, or the file itself where it lies in none
    tokenizer: Tokenizer

    has_images: ClassVar[bool] = False
    captions_follow: ClassVar[bool] = True

    @cached_property
    def captions(self) -> Sequence[str]:
        """Every sample's text; a character that a cut divides reads as U+FFFD."""
        return self.tokenizer.decode_batch(self.blocks.tolist(), skip_special_tokens=False)

    @cached_property
    def groups(self) -> Sequence[str]:
        return [self.folders[k] for k in self.labels]

    def tokens(self, indices: np.ndarray) -> np.ndarray:
        return self.blocks[indices].astype(np.int64)

    def image(self, i: int) -> Image.Image:
        raise ValueError("texts are no images")

    def pixels(self, indices: np.ndarray, size: int | None) -> np.ndarray:
        raise ValueError("texts have no pixels")

    def contents(self) -> Iterator[bytes]:
        yield np.ascontiguousarray(self.blocks).tobytes()


class TextSource(Source):
    """The files' beginnings to train on, and their held-out ends to test on. No sample goes across files.
    `open` raises Refused for files that are missing, are not UTF-8 or too short."""

    section: Text

    def open(self, split: Split) -> Texts:
        section = self.section
        root = located(section.path, self.folder, "data.path")
        if not root.exists():
            raise Refused("data.path", repr(section.path), "a folder of text files (*.txt), or one file")
        files = {root.stem: root}
        if root.is_dir():
            named = named_files(root, "data.path", ".txt", section.partition.by_folder)
            files = {name: file.file for name, file in named.items()}
        if not files:
            raise Refused("data.path", f"{str(root)!r} without texts", "files *.txt in it")
        stamps = tuple((name, file, file.stat().st_mtime_ns) for name, file in files.items())
        return _read(stamps, section.length, section.tokenizer.vocabulary, section.held_out)[split]

    @property
    def info(self) -> DatasetInfo:
        texts = cast(Texts, self.train)
        return DatasetInfo(0, None, texts.label_names, self.section.length, texts.tokenizer)


@lru_cache(maxsize=4)  # every evaluation asks again; files that have changed are read again
def _read(
    stamps: Sequence[tuple[str, Path, int]], length: int, vocabulary: int, held_out: float
) -> dict[Split, Texts]:
    """The samples of both splits.

    Args:
        stamps: name, file and time of change of each text.
        length: tokens a sample.
        vocabulary: of the tokenizer; 0: bytes alone.
        held_out: the share of each text, at its end, that is kept to test on.

    Raises:
        Refused: for a text that cannot be read or is too short.
    """
    texts: dict[Split, list[str]] = {"train": [], "test": []}
    for _, file, _ in stamps:
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as e:
            raise Refused(
                "data.path", f"{file}, which cannot be read: {reason(e)}", "text in UTF-8"
            ) from None
        cut = round(len(text) * (1 - held_out))
        texts["train"].append(text[:cut])
        texts["test"].append(text[cut:])
    names = [name for name, _, _ in stamps]
    groups = [name.split("/")[0] for name in names]
    # from all files, since which client has which sample is known only once there are samples
    tokenizer = train(texts["train"], vocabulary)
    samples: dict[Split, Texts] = {}
    for split, parts in texts.items():
        ids = [np.array(encoding.ids, np.int32) for encoding in tokenizer.encode_batch(parts)]
        sizes = np.array([len(x) // length for x in ids])
        if split == "train" and not sizes.all():
            short = int(np.argmin(sizes))
            raise Refused(
                "data.path",
                f"{stamps[short][1]} with {len(ids[short])} tokens to train on",
                f"at least data.length, {length}",
            )
        if not sizes.any():
            raise Refused(
                "data.held_out",
                held_out,
                f"more: no file's end fills a sample of data.length, {length} tokens",
            )
        blocks = np.concatenate(
            [x[: n * length].reshape(-1, length) for x, n in zip(ids, sizes, strict=True)]
        )
        samples[split] = Texts(blocks, np.repeat(np.arange(len(ids)), sizes), names, groups, tokenizer)
    return samples
