"""What the report's pictures are drawn with: a figure in the page's style, its colours, and the SVG that it
becomes."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fedray.errors import printable

# Colours that stand for the page's variables until the SVG is written.
INK = "#0a0a0a"
LINE = "#0b0b0b"
MUTED = "#0c0c0c"
VARIABLES = {INK: "var(--ink)", LINE: "var(--line)", MUTED: "var(--muted)"}
LABEL = 40  # characters of a name that a picture has room for


def colour(i: int) -> str:
    """The i-th series' colour; VARIABLES's kin."""
    return f"#f000{i % 8:02d}"


@contextmanager
def new_figure(width: float, height: float, rows: int = 1) -> Iterator[tuple[Figure, Any]]:
    style: dict[Any, Any] = {
        "text.parse_math": False,  # a name's $ is a $
        "svg.fonttype": "none",
        "svg.hashsalt": "fedray",
        "font.size": 9,
        "axes.edgecolor": LINE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "ytick.minor.size": 0,
        "text.color": INK,
        "axes.labelsize": 8.5,
        "path.simplify": True,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(rows, height_ratios=[3, 1] if rows > 1 else None)


def short_name(text: str) -> str:
    """A name that a picture has room for."""
    shown = printable(text)
    return shown if len(shown) <= LABEL else shown[: LABEL - 3] + "..."


def svg(figure: Figure, title: str) -> str:
    """The figure as an inline element: as wide as its place, in the page's colours and font, named for who
    cannot see it."""
    out = io.StringIO()
    with warnings.catch_warnings():
        # the page's own font is the reader's
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    box = re.search(r'viewBox="([\d. -]+)"', svg)
    assert box is not None
    svg = svg[svg.index(">", svg.index("<svg")) + 1 :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.S)
    svg = re.sub(r"<[^>]*>", _in_page_style, svg)  # in what is between, names, a `>` is escaped
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(printable(title))}">' + svg


def _in_page_style(tag: re.Match[str]) -> str:
    """One tag of matplotlib's with the page's variables for colours, no ids and no font of its own."""
    text = re.sub(r' id="[a-zA-Z0-9]+_\d+"', "", tag[0])
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for sentinel, variable in VARIABLES.items():
        text = text.replace(sentinel, variable)
    return re.sub(r"#f000(\d\d)", lambda m: f"var(--s{int(m[1])})", text)
