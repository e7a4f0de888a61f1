"""Which label a caption names."""

import re
from collections.abc import Sequence


class NoLabel(ValueError):
    """Of a text that names no label; `text` is which."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} names no label")
        self.text = text


def labels_in(texts: Sequence[str], names: Sequence[str]) -> list[int]:
    """The number of the label that each text names, as `label_in`.

    Raises:
        NoLabel: for the first text that names none.
    """
    numbers = []
    for text in texts:
        label = label_in(text, names)
        if label is None:
            raise NoLabel(text)
        numbers.append(label)
    return numbers


def label_in(caption: str, names: Sequence[str]) -> int | None:
    """The number of the label that a caption names, None where it names none. Of several, the longest name
    counts, so that "ankle boot" is not a boot and "t-shirt" not a shirt."""
    longest_first = sorted(range(len(names)), key=lambda i: -len(names[i]))
    for i in longest_first:
        if names[i] and re.search(rf"(?<!\w){re.escape(names[i])}(?!\w)", caption, re.IGNORECASE):
            return i
    return None
