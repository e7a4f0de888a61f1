"""Image folders in the convention of Hugging Face's imagefolder: images, and `metadata.jsonl`, `.csv` or
`.parquet` with their captions; or a text beside each image, as trainers of Stable Diffusion have it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedray.data import metadata
from fedray.data.decode import FORMATS, SUFFIXES
from fedray.data.folders import FileBelow, Names, Walk, composed, refuse_shared
from fedray.data.places import located
from fedray.data.samples import Files, Split
from fedray.data.source import Source
from fedray.scenario.base import Refused
from fedray.scenario.data import ImageFolder

# images that Pillow cannot decode: refused, where others would be left out
UNREAD = frozenset({".heic", ".heif", ".jxl"})


class ImageFolderSource(Source):
    """Images in folders, all of them in one place or at sites."""

    section: ImageFolder

    def open(self, split: Split) -> Files:
        assert split == "train", "an image folder has no test split"
        section = self.section
        samples = read(
            section.path,
            self.folder,
            "data",
            section.caption_key,
            section.caption,
            section.folders,
            condition_column=self.condition_column,
            clients=section.partition.by_folder,
        )
        return replace(samples, pads=section.pads)

    def open_at_site(self, site: str) -> tuple[Files, Mapping[int, np.ndarray]]:
        section = self.section
        assert section.sites is not None
        at_site = section.sites[site]
        samples = read(
            at_site.path or section.path,
            self.folder,
            f"data.sites.{site}",
            section.caption_key,
            section.caption,
            at_site.folders,
            condition_column=self.condition_column,
            clients=True,
            closed=[name for each in section.sites.values() for name in each.folders],
        )
        groups = np.asarray(samples.groups)
        clients = section.clients_at_sites()[site]
        return replace(samples, pads=section.pads), {
            client: np.flatnonzero(groups == composed(name))
            for client, name in zip(clients, at_site.folders, strict=True)
        }


def read(
    path: str,
    folder: Path,
    section: str,
    caption_key: str,
    caption: str | None,
    only: Sequence[str] | None = None,
    *,
    condition_column: str | None = None,
    clients: bool = False,
    closed: Collection[str] = (),
) -> Files:
    """Every image under a folder. An image's group is the first folder on its way down, its label the last.

    `metadata.jsonl` (or .csv, .parquet) may lie in the folder itself or in any of its folders; `file_name`
    is relative to its own, and of several captions the nearest counts. The caption of an image that none
    names is in the text of its name beside it, where there is one; its lines are joined. A file that a line
    names is an image whatever its suffix; one that is only another's condition picture is no sample.

    Args:
        path: relative to `folder`, or shipped:NAME.
        folder: the scenario's.
        section: the scenario's section, whose `path` this is.
        caption_key: what metadata.jsonl calls a caption.
        caption: for images that have none; None where each needs its own; with "" no texts are read.
        only: of the root's folders, the ones to read, in this order.
        condition_column: what metadata.jsonl calls an image's condition picture; None: there are none.
        clients: whether each of the root's folders is a client's: no file may be two's.
        closed: the root's folders, whether read or not, that are clients': no link may lead into them.

    Raises:
        Refused: naming `section.path` and the file, line or link at fault.
    """
    key = f"{section}.path"
    root = located(path, folder, key)
    if not root.is_dir():
        raise Refused(key, repr(path), "a folder of images" + ("" if not root.exists() else ", not a file"))
    files = Walk(root, key, _wanted, only, closed).files()
    lists = [f for f in files if f.names[-1] in metadata.NAMES]
    by_names = {f.names: f for f in files}
    order = None if only is None else {composed(name): i for i, name in enumerate(only)}
    keys = metadata.Keys(caption_key, condition_column)
    rows = metadata.rows(lists, by_names, key, keys, order)
    images = _images(files, rows, order)
    _refuse_empty(root, only, images, key)
    texts = {} if caption == "" else _texts([i for i in images if i.names not in rows], by_names)
    rows |= {names: metadata.Row(_caption(text.file, key)) for names, text in texts.items()}
    _refuse_without_line([image for image in images if image.names not in rows], section, keys, caption)
    said = [rows.get(image.names, metadata.Row(caption or "")) for image in images]
    conditions = [row.condition for row in said if row.condition is not None]
    if clients:
        refuse_shared([*images, *lists, *texts.values(), *conditions], _group, key)
        _refuse_foreign(images, said, key)
    return _samples(root, images, said)


def _samples(root: Path, images: Sequence[FileBelow], said: Sequence[metadata.Row]) -> Files:
    """Images with what is said of each; an image's label is its folder's name."""
    labels_of = [image.names[-2] if _group(image) else composed(root.name) for image in images]
    label_names, labels = np.unique(labels_of, return_inverse=True)
    return Files(
        [image.file for image in images],
        [row.caption for row in said],
        [_group(image) for image in images],
        labels,
        label_names.tolist(),
        [row.condition.file for row in said if row.condition is not None],
    )


def _refuse_without_line(
    images: Sequence[FileBelow], section: str, keys: metadata.Keys, caption: str | None
) -> None:
    """Raises Refused for the first of these images, which no line names, that needs one.

    Args:
        images: all without a line.
        section: the scenario's section.
        keys: what a line calls its values.
        caption: of images without a line; None where each needs its own.
    """
    key = f"{section}.path"
    for image in images:
        if image.file.suffix.lower() in UNREAD:
            raise Refused(key, f"{image.file}, which Pillow cannot decode", f"{', '.join(FORMATS)}")
        if keys.condition is not None:
            expected = f"a line for it in metadata.jsonl, with {keys.condition!r}"
            raise Refused(key, f"{image.file} without a condition picture", expected)
        if caption is None:
            got = f"{image.file} without a caption"
            expected = f"a line for it in metadata.jsonl, a text beside it, or {section}.caption for all"
            raise Refused(key, got, expected)


def _texts(images: Sequence[FileBelow], files: Mapping[Names, FileBelow]) -> dict[Names, FileBelow]:
    """The texts beside some of these images, by their images."""
    named = {image.names: (*image.names[:-1], f"{Path(image.names[-1]).stem}.txt") for image in images}
    return {image: files[text] for image, text in named.items() if text in files}


def _caption(file: Path, key: str) -> str:
    """What a text says, in one line."""
    caption = " ".join(metadata.text_of(file, key, "a caption").split())
    if not caption:
        raise Refused(key, f"{file} without a caption", "text in it")
    return caption


def _images(
    files: Sequence[FileBelow], rows: Mapping[Names, metadata.Row], order: Mapping[str, int] | None
) -> list[FileBelow]:
    """Those files that are samples, by their names, or where there is a given order, in that."""
    conditions = {row.condition.names for row in rows.values() if row.condition is not None}
    by_suffix = [f for f in files if f.file.suffix.lower() in SUFFIXES | UNREAD and f.names not in conditions]
    named = [f for f in files if f.names in rows]
    images = sorted({f.names: f for f in (*by_suffix, *named)}.values(), key=lambda f: f.names)
    if order is None:
        return images
    return sorted((f for f in images if _group(f)), key=lambda f: order[_group(f)])


def _refuse_foreign(images: Sequence[FileBelow], said: Sequence[metadata.Row], key: str) -> None:
    """Raises Refused where an image of one client has a condition picture in the folder of another."""
    for image, row in zip(images, said, strict=True):
        if row.condition is not None and _group(row.condition) != _group(image):
            got = f"{row.condition.file}, the condition picture of {image.file}"
            raise Refused(key, got, "condition pictures in the folder of their client")


def _wanted(name: str) -> bool:
    return name in metadata.NAMES or Path(name).suffix.lower() in SUFFIXES | UNREAD


def _group(file: FileBelow) -> str:
    return file.names[0] if len(file.names) > 1 else ""


def _refuse_empty(root: Path, only: Sequence[str] | None, images: Sequence[FileBelow], key: str) -> None:
    groups = {_group(image) for image in images}
    empty = (
        ([] if images else [root])
        if only is None
        else [root / name for name in only if composed(name) not in groups]
    )
    if empty:
        raise Refused(
            key, f"{str(empty[0])!r} without images", f"images ({', '.join(sorted(SUFFIXES))}) in it"
        )
