"""Makes the data sets that ship with fedray out of Debian's Fashion-MNIST (package dataset-fashion-mnist).

    uv run python tools/make_data.py --out fedray/shipped

fashion_mnist_mini: 2,500 training and 500 test garments, as many of each class, in Fashion-MNIST's own file
    format.
ink: 20 training garments painted in ink, the style tiny-sd has not seen, in five artists' folders of four
    classes. ink-heldout: 20 test garments painted likewise, to compare with. The same seed gives the same
    bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import struct
from pathlib import Path

import garments
import torch
from PIL import Image

ARTISTS, A_CLASS = 5, 2  # folders, and garments of each class over all of them
SAMPLE = 300  # garments of a class among which the typical ones are sought
PREFIX = {"train": "train", "test": "t10k"}

LICENSE = """\
The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
README = """\
# {title}

{what}

Source: Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017, https://github.com/zalandoresearch/fashion-mnist), MIT licence,
see {licence}. Made by `tools/make_data.py --seed {seed}`.
"""


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()

    mini = a.out / "fashion_mnist_mini"
    mini.mkdir(parents=True, exist_ok=True)
    for split, count in {"train": 2500, "test": 500}.items():
        write_idx(mini, split, count, a.seed)
    (mini / "LICENSE").write_text(LICENSE)
    what = (
        "2,500 of Fashion-MNIST's 60,000 training garments and 500 of its 10,000 test garments, 28 x 28 greyscale, "
        "drawn\nat random with equally many of each of the ten classes, in the original IDX files, gzipped."
    )
    (mini / "README.md").write_text(
        README.format(title="Fashion-MNIST, mini", what=what, licence="LICENSE", seed=a.seed)
    )

    grey, labels = typical("train", a.seed)
    pictures = garments.ink(grey, torch.Generator().manual_seed(a.seed + 1))
    # neighbours in the list share a class, so every fifth garment is of another one
    for artist in range(ARTISTS):
        mine = slice(artist, None, ARTISTS)
        write_folder(a.out / "ink" / f"artist-{artist + 1}", pictures[mine], labels[mine].tolist())
    held_grey, held_labels = typical("test", a.seed)
    held_out = garments.ink(held_grey, torch.Generator().manual_seed(a.seed + 2))
    write_folder(a.out / "ink-heldout", held_out, held_labels.tolist())
    for name, split in {"ink": "training", "ink-heldout": "test"}.items():
        what = f"Two typical {split} garments of each of Fashion-MNIST's ten classes, rendered in ink (`tools/garments.py`)."
        page = README.format(title=name, what=what, licence="../fashion_mnist_mini/LICENSE", seed=a.seed)
        (a.out / name / "README.md").write_text(page)


def write_idx(folder: Path, split: str, count: int, seed: int) -> None:
    """`count` garments, class-balanced, shuffled, as two gzipped IDX files (big-endian header, then
    bytes)."""
    grey, labels, _ = garments.load(split)
    g = torch.Generator().manual_seed(seed)
    per_class = [pick(labels, k, count // len(garments.LABELS), g) for k in range(len(garments.LABELS))]
    chosen = torch.cat(per_class)[torch.randperm(count, generator=g)]
    pixels = (grey[chosen, 2:30, 2:30] * 255).round().byte()  # without the padding that garments.load added
    prefix = PREFIX[split]
    for name, header, body in (
        (f"{prefix}-images-idx3-ubyte.gz", struct.pack(">4i", 0x803, count, 28, 28), pixels),
        (f"{prefix}-labels-idx1-ubyte.gz", struct.pack(">2i", 0x801, count), labels[chosen].byte()),
    ):
        (folder / name).write_bytes(gzip.compress(header + body.numpy().tobytes(), 9, mtime=0))


def typical(split: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Garments [20, 32, 32] and labels [20], class by class: of a random sample of each, those nearest to the
    class's median picture, so that a person knows them at 32 x 32."""
    grey, labels, _ = garments.load(split)
    g = torch.Generator().manual_seed(seed)
    chosen = []
    for k in range(len(garments.LABELS)):
        i = pick(labels, k, SAMPLE, g)
        distance = (grey[i] - grey[i].median(0).values).flatten(1).norm(dim=1)
        chosen.append(i[distance.argsort()[:A_CLASS]])
    rows = torch.cat(chosen)
    return grey[rows], labels[rows]


def pick(labels: torch.Tensor, label: int, count: int, g: torch.Generator) -> torch.Tensor:
    """Indices [count] of random garments of one class."""
    rows = (labels == label).nonzero()[:, 0]
    return rows[torch.randperm(len(rows), generator=g)[:count]]


def write_folder(folder: Path, pictures: torch.Tensor, labels: list[int]) -> None:
    """PNGs and `metadata.jsonl`, in the convention of Hugging Face's imagefolder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, seen = [], dict.fromkeys(labels, 0)
    for picture, label in zip(pictures, labels, strict=True):
        seen[label] += 1
        name = f"{garments.LABELS[label].replace(' ', '-')}-{seen[label]}.png"
        Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy()).save(
            folder / name, optimize=True
        )
        lines.append(json.dumps({"file_name": name, "text": garments.caption(label, "ink")}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
