"""Image folders in the convention of Hugging Face's imagefolder: images, and `metadata.jsonl` with their captions."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedray.data.samples import Files, located
from fedray.errors import reason
from fedray.scenario.base import Refused

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def read(path: str, folder: Path, section: str, caption_key: str, caption: str | None, only: Sequence[str] | None = None) -> Files:
    """Every image under a folder, or under `only` some folders in it. An image's group is the first folder on its way
    down, its label the last.

    `metadata.jsonl` may lie in the folder itself or in any of its folders; `file_name` is relative to its own.

    Raises:
        Refused: naming `section`'s key that asked for what is not there.
    """
    root = located(path, folder, f"{section}.path")
    if not root.is_dir():
        raise Refused(f"{section}.path", repr(path), "a folder of images" + ("" if not root.exists() else ", not a file"))
    places = [root] if only is None else [root / name for name in only]
    files: list[Path] = []
    for place in places:
        found = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise Refused(f"{section}.path", f"{str(place)!r} without images", f"images ({', '.join(sorted(SUFFIXES))}) in it")
        files += found
    named: dict[Path, str] = {}
    for metadata in sorted({m for place in places for m in place.rglob("metadata.jsonl")} | set(root.glob("metadata.jsonl"))):
        named |= _captions(metadata, section, caption_key, only)
    captions = []
    for file in files:
        text = named.get(file, caption)
        if text is None:
            raise Refused(f"{section}.path", f"{file} without a caption", f"a line for it in metadata.jsonl, or {section}.caption for all")
        captions.append(text)
    groups = [parts[0] if len(parts := file.relative_to(root).parts) > 1 else "" for file in files]
    label_names, labels = np.unique([file.parent.name for file in files], return_inverse=True)
    return Files(files, captions, groups, labels, label_names.tolist())


def _captions(metadata: Path, section: str, caption_key: str, only: Sequence[str] | None) -> dict[Path, str]:
    captions: dict[Path, str] = {}
    try:
        text = metadata.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise Refused(f"{section}.path", f"{metadata}, which cannot be read: {reason(e)}", "JSON lines in UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would break a caption at U+2028
        if not line.strip():
            continue
        where = f"{metadata}:{number}"
        try:
            row = json.loads(line)
        except ValueError as e:
            raise Refused(f"{section}.path", f"{where}: {e}", "one JSON object a line") from None
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str) or not isinstance(row.get(caption_key), str):
            raise Refused(f"{section}.path", f"{where}: {line[:60]}", f'{{"file_name": ..., "{caption_key}": ...}}')
        file = metadata.parent / row["file_name"]
        if not file.is_file():
            if only is not None and Path(row["file_name"]).parts[0] not in only:
                continue  # a line for a folder that nobody asked for
            raise Refused(f"{section}.path", f"{where}: {row['file_name']!r}, which is missing", f"an image in {metadata.parent}")
        captions[file] = row[caption_key]
    return captions
