"""Makes the emoji that ship with fedray out of Fluent Emoji Flat (Microsoft, MIT licence).

    python -m venv emoji-venv && emoji-venv/bin/pip install resvg-py==0.5.0 pillow
    npm pack @iconify-json/fluent-emoji-flat@1.2.6
    emoji-venv/bin/python tools/make_emoji.py --package iconify-json-fluent-emoji-flat-1.2.6.tgz \
        --out fedray/shipped

emoji: pictures of 32 x 32 on white, in a folder a kind of thing, with captions by name. emoji-heldout: others,
    which no model that ships has seen.
emoji-subject: a few views of each of four things that are not among them, for teaching a model one subject.
resvg draws the package's SVG; the same package and resvg give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

import emoji_names as names
import resvg_py
from PIL import Image

PACKAGE = "@iconify-json/fluent-emoji-flat"
VERSION = "1.2.6"
TARBALL_SHA256 = "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"
AN = ("hourglass", "umbrella")  # "an" before these too
SIDE = 32  # pixels, and the SVG's own units
SUBJECTS = {  # folder: the emoji, and its caption
    "bag": ("handbag", "a photo of a sks bag"),
    "t-shirt": ("t-shirt", "a photo of a sks t-shirt"),
    "cat": ("black-cat", "a picture of a sks cat"),
    "dog": ("service-dog", "a picture of a sks dog"),
}
VIEWS = (  # of a subject: scale, flip, rotation in degrees, and shift in pixels to the right and down
    (1.0, 1, 0, 0, 0),
    (1.0, -1, 0, 0, 0),
    (0.8, 1, 0, -2, 2),
    (0.8, -1, 8, 2, -1),
    (0.9, 1, -8, 1, 1),
    (0.9, -1, 4, -1, -1),
)

LICENSE = """\
MIT License

Copyright (c) Microsoft Corporation.

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
README = """\
# {title}

{what}

Source: {pictures} pictures of Fluent Emoji Flat (Microsoft Corporation, https://github.com/microsoft/fluentui-emoji), MIT
licence, see {licence_file}; from the npm package {package} {version} (sha256 {package_sha256}). Made by `tools/make_emoji.py`,
drawn by resvg {resvg}. `source.json` has the same, and the SHA-256 of the pictures and captions.
"""
WHAT = {
    "emoji": "Emoji by name, 32 x 32 on white, in a folder a kind of thing: {kinds}.",
    "emoji-heldout": "Emoji that are not in ../emoji and that tiny-sd2 was not trained on.",
    "emoji-subject": "Six views of each of four things, in a folder each: {kinds}. None of them is in ../emoji.",
}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--package", type=Path, required=True, help="the package as `npm pack` brings it")
    p.add_argument("--out", type=Path, required=True)
    a = p.parse_args()
    icons = opened(a.package)
    kinds = {kind: entries(words) for kind, words in names.CATEGORIES.items()}
    held_out = entries(names.HELD_OUT)
    refuse_twice(name for words in (*kinds.values(), held_out) for name, _ in words)
    for title in WHAT:
        shutil.rmtree(a.out / title, ignore_errors=True)
    for kind, words in kinds.items():
        write_pictures(a.out / "emoji" / kind, [(n, drawn(icons[n]), text) for n, text in words])
    write_pictures(a.out / "emoji-heldout", [(n, drawn(icons[n]), text) for n, text in held_out])
    for subject, (name, text) in SUBJECTS.items():
        views = [(f"{subject}-{i}", drawn(icons[name], view), text) for i, view in enumerate(VIEWS, 1)]
        write_pictures(a.out / "emoji-subject" / subject, views)
    for title in WHAT:
        write_source(a.out / title)


def opened(package: Path) -> dict[str, str]:
    """The package's SVG elements by name.

    Raises:
        SystemExit: for another package, or one whose pictures are not under the MIT licence.
    """
    data = package.read_bytes()
    if (sha256 := hashlib.sha256(data).hexdigest()) != TARBALL_SHA256:
        raise SystemExit(
            f"got a package with sha256 {sha256}, expected {PACKAGE} {VERSION}, {TARBALL_SHA256}"
        )
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:

        def read(name: str) -> dict:
            member = tar.extractfile(f"package/{name}")
            assert member is not None
            return json.load(member)

        licence = read("info.json")["license"]["spdx"]
        if licence != "MIT":
            raise SystemExit(f"got pictures under {licence}, expected MIT")
        return {name: icon["body"] for name, icon in read("icons.json")["icons"].items()}


def entries(words: str) -> list[tuple[str, str]]:
    """Each emoji's name in the package, and its caption."""
    plain = {word.replace("+", " ") for word in names.NO_ARTICLE.split()}
    found = []
    for word in words.split():
        name, _, other = word.partition("=")
        called = other.replace("+", " ") or name.replace("-", " ")
        if called not in plain:
            called = ("an " if called.startswith(tuple("aeio") + AN) else "a ") + called
        found.append((name, f"a picture of {called}"))
    return found


def refuse_twice(all_names: Iterable[str]) -> None:
    seen = {name for name, _ in SUBJECTS.values()}
    for name in all_names:
        if name in seen:
            raise SystemExit(f"{name} is named twice")
        seen.add(name)


def drawn(body: str, view: tuple[float, int, int, int, int] = VIEWS[0]) -> Image.Image:
    """An SVG's elements on white, as RGB."""
    scale, flip, degrees, right, down = view
    middle = SIDE / 2
    placed = (
        f"translate({middle + right} {middle + down}) rotate({degrees}) scale({flip * scale} {scale}) "
        f"translate({-middle} {-middle})"
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIDE}" height="{SIDE}" viewBox="0 0 {SIDE} {SIDE}">'
        f'<rect width="{SIDE}" height="{SIDE}" fill="#fff"/><g transform="{placed}">{body}</g></svg>'
    )
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGB")


def write_pictures(folder: Path, pictures: list[tuple[str, Image.Image, str]]) -> None:
    """PNGs and `metadata.jsonl`, in the convention of Hugging Face's imagefolder."""
    folder.mkdir(parents=True)
    lines = []
    for name, picture, text in pictures:
        picture.save(folder / f"{name}.png", optimize=True)
        lines.append(json.dumps({"file_name": f"{name}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_source(folder: Path) -> None:
    """`source.json` and README.md: where the pictures are from; and the licence, in `emoji` alone."""
    source = {
        "package": PACKAGE,
        "version": VERSION,
        "package_sha256": TARBALL_SHA256,
        "author": "Microsoft Corporation",
        "licence": "MIT",
        "resvg": resvg_py.__version__,
        "pictures": len(list(folder.rglob("*.png"))),
        "pictures_sha256": hashed(folder),
    }
    (folder / "source.json").write_text(json.dumps(source, indent=1) + "\n", encoding="utf-8")
    kinds = ", ".join(sorted(p.name for p in folder.iterdir() if p.is_dir()))
    licence_file = "LICENSE" if folder.name == "emoji" else "../emoji/LICENSE"
    what = WHAT[folder.name].format(kinds=kinds)
    text = README.format(title=folder.name, what=what, licence_file=licence_file, **source)
    (folder / "README.md").write_text(text, encoding="utf-8")
    if folder.name == "emoji":
        (folder / "LICENSE").write_text(LICENSE, encoding="utf-8")


def hashed(folder: Path) -> str:
    """SHA-256 over the path and content of every picture and caption file, in the order of their paths."""
    digest = hashlib.sha256()
    files = [p for p in folder.rglob("*") if p.suffix in (".png", ".jsonl")]
    for file in sorted(files, key=lambda p: p.relative_to(folder).as_posix()):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
