"""Texts: files in UTF-8, cut into samples of equally many tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
from PIL import Image

from fedray.data.folders import FileBelow, Walk, refuse_shared
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
        files = _by_name(root, section.partition.by_folder) if root.is_dir() else {root.stem: root}
        if not files:
            raise Refused("data.path", f"{str(root)!r} without texts", "files *.txt in it")
        stamps = tuple((name, file, file.stat().st_mtime_ns) for name, file in files.items())
        return _read(stamps, section.length, section.tokenizer.vocabulary, section.held_out)[split]

    @property
    def info(self) -> DatasetInfo:
        texts = cast(Texts, self.train)
        return DatasetInfo(0, None, texts.label_names, self.section.length, texts.tokenizer)


def _by_name(root: Path, clients: bool) -> dict[str, Path]:
    """The texts in a folder, by their names without .txt; where its folders are clients, no file is two
    clients'."""
    files = [f for f in Walk(root, "data.path", _is_text).files() if _is_text(f.names[-1])]
    if clients:
        refuse_shared(files, _owner, "data.path")
    named: dict[str, FileBelow] = {}
    alone = {_owner(file): file for file in files if len(file.names) == 1}
    for file in files:
        name = PurePosixPath(*file.names).with_suffix("").as_posix()
        other = named.setdefault(name, file)
        if other is file and clients:
            other = alone.get(_owner(file), file)
        if other is not file:
            raise Refused(
                "data.path",
                f"{other.file} and {file.file}, which are one name without .txt",
                "a name for each",
            )
    return {name: file.file for name, file in named.items()}


def _is_text(name: str) -> bool:
    return name.lower().endswith(".txt")


def _owner(file: FileBelow) -> str:
    """The first folder of a file, or the file itself where it lies in none."""
    return file.names[0] if len(file.names) > 1 else PurePosixPath(file.names[0]).stem


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
