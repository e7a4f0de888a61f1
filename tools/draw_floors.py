"""The floors of the code as a drawing, from the import rules that CI holds: `python tools/draw_floors.py > docs/floors.svg`."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT, GAP, LEFT = 760, 34, 8, 40
BOX = (
    '<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{height}" rx="6" fill="{fill}" stroke="#546e7a"/>'
)
TEXT = '<text x="{x:.0f}" y="{y}" text-anchor="middle">{text}</text>'
ROOM, FILE = "#e0f2f1", "#eceff1"  # a folder, a single file


def floors() -> list[list[str]]:
    """The rooms of each floor, the highest floor first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[room.strip().removeprefix("fedray.") for room in layer.split("|")] for layer in layers]


def drawing() -> str:
    """An SVG: a row a floor; a room may import what lies below it."""
    rows = floors()
    height = len(rows) * (HEIGHT + GAP) + GAP
    middle = (height + GAP) // 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + GAP} {height}"'
        ' font-family="ui-monospace, monospace" font-size="14" fill="#263238" role="img">',
        "<title>The floors of fedray: each room imports only what lies below it</title>",
        f'<rect width="100%" height="{height}" rx="8" fill="#ffffff"/>',
        f'<path d="M20 {GAP} V{height - GAP} l-5 -8 m5 8 l5 -8" fill="none" stroke="#546e7a"/>',
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">imports</text>',
    ]
    for i, rooms in enumerate(rows):
        width = (WIDTH - GAP * (len(rooms) - 1)) / len(rooms)
        y = GAP + i * (HEIGHT + GAP)
        for k, room in enumerate(rooms):
            folder = (ROOT / "fedray" / room).is_dir()
            x = LEFT + k * (width + GAP)
            lines.append(BOX.format(x=x, y=y, width=width, height=HEIGHT, fill=ROOM if folder else FILE))
            lines.append(TEXT.format(x=x + width / 2, y=y + 22, text=room if folder else f"{room}.py"))
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    print(drawing(), end="")
