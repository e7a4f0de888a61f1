"""The chart of a transmission: what arrives against the signal-to-noise ratio, a line a way."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedray.files import whole

NAMES = {
    "codec": "learnt codec",
    "linear": "linear analog",
    "bound": "bound of a Gaussian source",
    "jpeg": "JPEG, ideal code",
    "webp": "WebP, ideal code",
    "prompt": "label and seed",
}
STYLES = {
    "codec": ("#1f5fbf", "-", "o"),
    "linear": ("#c2571a", "-", "s"),
    "bound": ("#555555", ":", ""),
    "jpeg": ("#2f8f5b", "--", "^"),
    "webp": ("#8a4fb3", "--", "v"),
    "prompt": ("#b0892b", "-.", "d"),
}


def write_chart(table: Mapping[str, Mapping[float, Mapping[str, float]]], file: Path, channel: Any) -> None:
    """PSNR and the recognised share of each way as a PNG file, which is there whole or not at all.

    Args:
        table: by way and ratio in dB, what was measured.
        file: to be written.
        channel: its section, whose training range is shaded.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, key, label in zip(axes, ("psnr", "recognised"), ("PSNR in dB", "recognised share"), strict=True):
        for way, rows in table.items():
            points = [(snr_db, row[key]) for snr_db, row in sorted(rows.items()) if key in row]
            if points:
                colour, line, marker = STYLES[way]
                ax.plot(*zip(*points, strict=True), line, color=colour, marker=marker, label=NAMES[way])
        ax.axvspan(*channel.snr_range_db, color="#1f5fbf", alpha=0.06, lw=0)
        ax.set_xlabel(f"mean signal-to-noise ratio in dB ({channel.kind})")
        ax.set_ylabel(label)
        ax.grid(alpha=0.25)
    axes[1].set_ylim(0, 1.02)
    figure.legend(*_entries(axes), loc="outside right center", frameon=False, fontsize=8)
    with whole(file) as part:
        figure.savefig(part, format="png")


def _entries(axes: Any) -> tuple[list[Any], list[str]]:
    """Each way once, whichever side shows it."""
    found: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
