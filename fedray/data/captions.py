"""Which label a caption names."""

import re
from collections.abc import Sequence


def label_in(caption: str, names: Sequence[str]) -> int | None:
    """The number of the label that a caption names, None where it names none. Of several, the longest name
    counts, so that "ankle boot" is not a boot and "t-shirt" not a shirt."""
    longest_first = sorted(range(len(names)), key=lambda i: -len(names[i]))
    for i in longest_first:
        if names[i] and re.search(rf"(?<!\w){re.escape(names[i])}(?!\w)", caption, re.IGNORECASE):
            return i
    return None
