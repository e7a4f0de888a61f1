"""What a safetensors file says that it holds, read without torch and without its data."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
BYTES = FLOATS | {"BOOL": 1, "I64": 8, "I32": 4}  # the others are of positions and masks
MOST_HEADER = 100 << 20  # bytes, as safetensors' own limit
POINTERS = {b"version https://git-lfs": "Git LFS", b"/annex/objects/": "git-annex"}


def tensors_in(
    file: Path, refuse: Callable[[object, str], Exception]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """dtype and shape of every tensor, by name. Raises what `refuse` makes of what was got and what was
    expected, where the file is a pointer, cut off, quantized or something else."""
    refuse_pointer(file, refuse)
    try:
        size = file.stat().st_size
        with file.open("rb") as f:
            head = f.read(8)
            length = int.from_bytes(head, "little")
            text = f.read(length) if 8 + length <= size and length <= MOST_HEADER else None
    except OSError as e:
        raise refuse(f"{file}, which cannot be read ({e.strerror})", "weights in safetensors") from None
    if len(head) < 8 or text is None:
        raise refuse(f"{file} of {size:,} bytes, which is cut off or no safetensors", "whole weights")
    try:
        header = json.loads(text)
        entries = {name: _entry(value) for name, value in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise refuse(f"{file}, which is no safetensors", "weights in safetensors") from None
    end = max((end for *_, end in entries.values()), default=0)
    if not entries:
        raise refuse(f"{file}, which holds no tensor", "weights")
    if 8 + length + end != size:
        raise refuse(
            f"{file} of {size:,} bytes, which is cut off: its header tells of {8 + length + end:,}",
            "whole weights",
        )
    for name, (dtype, shape, first, last) in entries.items():
        if dtype not in BYTES:
            raise refuse(
                f"{name} in {dtype:.20} in {file}", f"weights that are not quantized ({', '.join(FLOATS)})"
            )
        if last - first != BYTES[dtype] * math.prod(shape):
            raise refuse(
                f"{name} of shape {list(shape)} in {last - first:,} bytes in {file}",
                f"{BYTES[dtype] * math.prod(shape):,}",
            )
    return {name: (dtype, shape) for name, (dtype, shape, *_) in entries.items()}


def refuse_pointer(file: Path, refuse: Callable[[object, str], Exception]) -> None:
    """For what Git LFS and git-annex leave where a file's content has not been fetched: some words, or a link
    to nothing."""
    if file.is_symlink() and not file.exists():
        annex = "annex" in file.readlink().parts
        raise refuse(
            f"{file}, a link to what is not there",
            f"its content ({_fetch('git-annex')})" if annex else "what it links to",
        )
    if not file.is_file() or file.stat().st_size >= 4096:
        return
    try:
        with file.open("rb") as f:
            start = f.read(200)
    except OSError:
        return  # whoever reads it says why
    what = "weights" if file.suffix == ".safetensors" else "its content"
    for mark, tool in POINTERS.items():
        if mark in start:
            raise refuse(
                f"{file}, a pointer of {tool} instead of {what}",
                f"the {what.removeprefix('its ')} ({_fetch(tool)})",
            )


def _entry(value: Any) -> tuple[str, tuple[int, ...], int, int]:
    first, last = value["data_offsets"]
    return str(value["dtype"]), tuple(int(n) for n in value["shape"]), int(first), int(last)


def _fetch(tool: str) -> str:
    return "git lfs pull" if tool == "Git LFS" else "git annex get ."
