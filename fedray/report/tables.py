"""Variants over their seeds as tables to take along: CSV with every number, and LaTeX (booktabs) to paste."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedray.errors import printable
from fedray.files import write_whole
from fedray.report import numbers, recorded
from fedray.report.replicates import COSTS, Variant, rounded, variants
from fedray.report.shown import is_main, shown_metrics
from fedray.runs.replicates import Estimate, estimates
from fedray.scenario import ScenarioError

CSV = "table.csv"
LATEX = "table.tex"
ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def write(folders: Sequence[Path], into: Path) -> tuple[Path, Path]:
    """Writes the tables of runs, or of a sweep, and gives their files.

    Args:
        folders: of runs; a sweep's stands for its runs.
        into: a folder, which is made where it is not there.

    Raises:
        ScenarioError: where a folder holds no run, or files that are not a run's, or where the tables cannot
            be written.
    """
    runs = recorded.read(folders)
    shown = variants(runs)
    title = recorded.load_scenario(folders[0])["name"] if len(folders) == 1 else "runs"
    texts = {CSV: as_csv(shown), LATEX: as_latex(shown, title)}
    try:
        into.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_whole(into / name, text)
    except OSError as e:
        got = f"a folder that cannot be written to ({e.strerror or e})"
        raise ScenarioError([f"{into}: got {got}, expected another place"]) from None
    return into / CSV, into / LATEX


def as_csv(shown: Sequence[Variant]) -> str:
    """A row a variant: its name, its seeds, the scenario keys in which variants differ, and of every metric
    that was recorded in the last round how many runs have it, their mean, standard deviation and 95 %
    confidence interval."""
    differing = recorded.differences([one.example for one in shown])
    settings = {key: values for key, values in differing.items() if key != "seed"}
    measured = [estimates([run.rows[-1] for run in one.measured if run.rows]) for one in shown]
    keys = list(dict.fromkeys(key for one in measured for key in one))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = ("n", "mean", "std", "ci95_low", "ci95_high")
    writer.writerow(["variant", "seeds", *settings, *(f"{key}_{part}" for key in keys for part in parts)])
    for i, (one, known) in enumerate(zip(shown, measured, strict=True)):
        row: list[Any] = [numbers.safe_cell(one.name), " ".join(map(str, one.seeds))]
        row += [_setting(values[i]) for values in settings.values()]
        for key in keys:
            row += _five(known.get(key))
        writer.writerow(row)
    return out.getvalue()


def _setting(value: Any) -> Any:
    return numbers.safe_cell(value) if isinstance(value, str) else value


def _five(one: Estimate | None) -> list[Any]:
    if one is None:
        return [0, None, None, None, None]
    return [one.n, one.mean, one.std, *(one.interval or (None, None))]


def as_latex(shown: Sequence[Variant], title: str) -> str:
    """A table for a paper: a row a variant, the mean of each metric with half its 95 % confidence interval,
    and what it cost. Names are escaped.

    Args:
        shown: the variants.
        title: of the experiment, for caption and label.
    """
    keys = shown_metrics([run for one in shown for run in one.measured])
    heads = ["variant", "$n$", *map(_head, keys), *(name for name, _ in COSTS.values())]
    rows = [" & ".join(heads) + r" \\"]
    body = [" & ".join(_row(one, keys)) + r" \\" for one in shown]
    caption = (
        rf"{escape(title)}: mean $\pm$ half of the 95\,\% confidence interval (Student's $t$) over $n$ seeds,"
        " after the last round."
    )
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{caption}}}",
        rf"  \label{{tab:{''.join(c if c.isalnum() else '-' for c in title)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        *(f"    {line}" for line in (r"\toprule", *rows, r"\midrule", *body, r"\bottomrule")),
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join([r"% Needs \usepackage{booktabs}; written by fedray.", *lines]) + "\n"


def _head(key: str) -> str:
    return escape(numbers.name(key)) + (r" (\%)" if numbers.is_share(key) else "")


def _row(one: Variant, keys: Sequence[str]) -> list[str]:
    cells = [escape(one.name), str(len(one.measured))]
    for key in keys:
        final = one.final(key)
        if final is None:
            cells.append("--")
            continue
        mean, half, _ = rounded(key, final)
        cells.append(rf"${_number(mean)} \pm {_number(half)}$" if half else f"${_number(mean)}$")
    return [*cells, *(escape(one.cost(axis)) or "--" for axis in COSTS)]


def _number(text: str) -> str:
    """A number in mathematics: 1.2e-07 as powers of ten."""
    digits, e, power = text.partition("e")
    return rf"{digits} \times 10^{{{int(power)}}}" if e else digits


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(ESCAPES.get(c, c) for c in printable(text))


def described(summary: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line a variant that ran under several seeds, for a terminal; `summary` is result.json's."""
    lines = []
    for name, variant in summary.items():
        if len(variant["runs"]) > 1:
            known = {k: Estimate.of_json(v) for k, v in variant["metrics"].items() if is_main(k)}
            said = [f"{numbers.name(key)} {_said(key, one)}" for key, one in known.items()]
            lines.append(f"{name}, {variant['done']} of {len(variant['runs'])} seeds: {', '.join(said)}")
    return lines


def _said(key: str, final: Estimate) -> str:
    mean, half, _ = rounded(key, final)
    unit = "%" if numbers.is_share(key) else ""
    return f"{mean} ± {half}{unit}" if half else f"{mean}{unit}"
