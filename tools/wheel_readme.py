"""The wheel's README: README.md, whose links into the repository become words, since outside of it they lead
nowhere. hatchling runs this as a metadata hook (pyproject.toml)."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = re.compile(r"^!\[[^]]*\]\((?!https?:)[^)]*\)\n+", re.M)
LINK = re.compile(r"(?<!!)\[([^]]+)\]\((?!https?:|#)([^)]+)\)")


def outside(text: str) -> str:
    """Without pictures of the repository; `[text](path)` becomes `text (path, in the repository)`."""

    def worded(link: re.Match[str]) -> str:
        name, path = link.groups()
        return f"{name} (in the repository)" if name == path else f"{name} ({path}, in the repository)"

    return LINK.sub(worded, PICTURE.sub("", text))


class WheelReadme(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": outside(text)}
