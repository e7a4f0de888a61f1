"""The one kind of error that is not a defect of ours, how the others are told in a line, and text that is
safe to print."""

import unicodedata


class UserError(ValueError):
    """A user's mistake: its lines are all a command line says of it, and a notebook."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}:", *printable(self, keep="\n").split("\n")]


def reason(e: BaseException) -> str:
    """Why something failed, in one line."""
    return (getattr(e, "strerror", None) or str(e) or type(e).__name__).split("\n")[0]


def printable(text: object, keep: str = "") -> str:
    """Text from a file as a terminal or a picture may show it: whatever could move the cursor, ring, recolour
    or turn the direction of writing is there as a visible escape (\\x1b), line breaks too, but for the
    characters to `keep`."""
    return "".join(
        c if c.isprintable() or c in keep or unicodedata.category(c) == "Zs" else _escaped(c)
        for c in str(text)
    )


def shortened(text: str, most: int = 60) -> str:
    """A text that fits into a line of an error."""
    return text if len(text) <= most else text[: most - 3] + "..."


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
