"""Image folders in the convention of Hugging Face's imagefolder: images, and `metadata.jsonl` with their
captions."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from fedray.data import metadata
from fedray.data.decode import FORMATS, SUFFIXES
from fedray.data.folders import FileBelow, Walk, composed, refuse_shared
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
        return read(
            section.path,
            self.folder,
            "data",
            section.caption_key,
            section.caption,
            section.folders,
            clients=section.partition.by_folder,
        )

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
            clients=True,
            closed=[name for each in section.sites.values() for name in each.folders],
        )
        groups = np.asarray(samples.groups)
        clients = section.clients_at_sites()[site]
        return samples, {
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
    clients: bool = False,
    closed: Collection[str] = (),
) -> Files:
    """Every image under a folder. An image's group is the first folder on its way down, its label the last.

    `metadata.jsonl` may lie in the folder itself or in any of its folders; `file_name` is relative to its
    own, and of several captions the nearest counts. A file that a line names is an image whatever its suffix.

    Args:
        path: relative to `folder`, or shipped:NAME.
        folder: the scenario's.
        section: the scenario's section, whose `path` this is.
        caption_key: what metadata.jsonl calls a caption.
        caption: for images that it does not name; None where each needs its own.
        only: of the root's folders, the ones to read, in this order.
        clients: whether each of the root's folders is a client's: no file may be two's.
        closed: the root's folders that are clients', also where `only` leaves them out: no link may lead into
            them.

    Raises:
        Refused: naming `section.path` and the file, line or link at fault.
    """
    key = f"{section}.path"
    root = located(path, folder, key)
    if not root.is_dir():
        raise Refused(key, repr(path), "a folder of images" + ("" if not root.exists() else ", not a file"))
    files = Walk(root, key, _wanted, only, closed).files()
    lists = [f for f in files if f.names[-1] == metadata.NAME]
    order = None if only is None else {composed(name): i for i, name in enumerate(only)}
    captions = metadata.captions(lists, {f.names: f for f in files}, key, caption_key, order)
    images = [f for f in files if f.names in captions or f.file.suffix.lower() in SUFFIXES | UNREAD]
    if order is not None:
        images = sorted((f for f in images if _group(f)), key=lambda f: order[_group(f)])
    _refuse_empty(root, only, images, key)
    for image in images:
        if image.names not in captions and image.file.suffix.lower() in UNREAD:
            raise Refused(key, f"{image.file}, which Pillow cannot decode", f"{', '.join(FORMATS)}")
        if image.names not in captions and caption is None:
            got = f"{image.file} without a caption"
            raise Refused(key, got, f"a line for it in metadata.jsonl, or {section}.caption for all")
    if clients:
        refuse_shared(images + lists, _group, key)
    texts = [captions.get(image.names, caption or "") for image in images]
    labels_of = [image.names[-2] if _group(image) else composed(root.name) for image in images]
    label_names, labels = np.unique(labels_of, return_inverse=True)
    return Files(
        [image.file for image in images],
        texts,
        [_group(image) for image in images],
        labels,
        label_names.tolist(),
    )


def _wanted(name: str) -> bool:
    return name == metadata.NAME or Path(name).suffix.lower() in SUFFIXES | UNREAD


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
