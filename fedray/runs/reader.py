"""Reads what lies in a run folder, whoever wrote it: one way for every file. A last line that was cut off is
not there yet; anything else that is not as a run writes it is refused by file and line. Links that leave the
folder are not followed."""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from pydantic import ValidationError

from fedray.errors import printable
from fedray.runs.shapes import LINES, SHAPES, Shape
from fedray.scenario.explain import kind_of
from fedray.scenario.load import Loaded, ScenarioError, in_run_folder, load

if TYPE_CHECKING:
    import pyarrow

SCENARIO = "scenario.resolved.yaml"
MOST = 64 * 2**20  # bytes of a file, or of a line of one that has a line a round
MOST_SCENARIO = 2**20
LARGEST = 1e100  # a number beyond is none that a run measures, and its square is no number
# What a run writes, or reads again.
OURS = [
    SCENARIO,
    "metrics.jsonl",
    "timeline.jsonl",
    "clients.jsonl",
    "client_tests.jsonl",
    "checkpoints",
    "samples",
    "model",
    "generated",
    "run.log",
    "report.html",
    "results",
    "ledger.jsonl",
    "ledger-keys.json",
    "ledger",
]
WRITTEN = [
    "samples",
    "model",
    "results",
    "ledger",
    "tensorboard",
    "mlruns",
]  # folders in whose files a run writes
ROUND = re.compile(r"(?:round|attack|reconstructions)-(\d{1,9})")


def refuse_links(run: Path) -> None:
    """Raises ScenarioError where a part of a run is elsewhere."""
    for name in OURS:
        inside(run, run / name)


def inside(run: Path, file: Path) -> Path:
    """The file, which may be a link within the run folder.

    Raises:
        ScenarioError: for a link out of it.
    """
    try:
        real = file.resolve()
    except (OSError, RuntimeError) as e:  # links that go round in circles
        raise _refused(file, f"a link that leads nowhere ({e})", "a file of the run folder") from None
    if not real.is_relative_to(run.resolve()):
        raise _refused(file, f"a link out of the run folder, to {real}", "a file in it")
    return file


def refuse_written_links(run: Path) -> None:
    """Raises ScenarioError where a run that goes on would write through a link to somewhere else."""
    for name in WRITTEN:
        refuse_links_within(run, run / name)


def refuse_links_within(run: Path, folder: Path) -> None:
    """Raises ScenarioError where anything under a folder of the run is a link out of it."""
    for entry in (folder, *folder.rglob("*")):
        inside(run, entry)


def scenario(run: Path, settings: Sequence[str] = ()) -> Loaded:
    """What was run, with other values (`a.b=v`) where `settings` say so.

    Raises:
        ScenarioError: where there is none, or one that is not whole.
    """
    if _bytes(run, run / SCENARIO, MOST_SCENARIO) is None:
        raise ScenarioError([f"{run}: got a folder that holds no run, expected one with {SCENARIO}"])
    return load(run / SCENARIO, settings, code=code_folders(run))


def code_folders(run: Path) -> tuple[Path, ...]:
    """Where the kinds of a run's user may be looked for: here, and where they lay when it began. A run folder
    may be a stranger's: nothing in it is imported, nor anything of another person's that it names."""
    recorded = (document(run, "env.json") or {}).get("code", {}).values()
    folders = [Path.cwd(), *(Path(module["folder"]) for module in recorded)]
    return tuple(folder for folder in folders if folder.is_absolute() and _is_callers(run, folder))


def _is_callers(run: Path, folder: Path) -> bool:
    try:
        if folder.resolve().is_relative_to(run.resolve()) or in_run_folder(folder.resolve()):
            return False
        return folder.stat().st_uid == os.getuid()
    except OSError:  # it is not there any more
        return False


def text(run: Path, name: str) -> str:
    """A text file; empty where there is none."""
    raw = _bytes(run, run / name)
    return "" if raw is None else _decoded(run / name, raw)


def document(run: Path, name: str) -> dict[str, Any] | None:
    """A JSON file; none where there is none.

    Raises:
        ScenarioError: for one that is cut off, or not what a run writes.
    """
    file = run / name
    if (raw := _bytes(run, file)) is None:
        return None
    source = _decoded(file, raw)
    return _shaped(file, source, SHAPES.get(file.name, Shape), partial(_line_of, source), 0)


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    """A file of a JSON object a line; a last line without an end is not there yet."""
    file = run / name
    shape = LINES[name]
    result: list[dict[str, Any]] = []
    if not _is_there(run, file):
        return []
    with file.open("rb") as f:
        while (raw := f.readline(MOST + 1)).endswith(b"\n"):
            number = len(result) + 1
            result.append(
                _shaped(file, _decoded(file, raw, number), shape, partial(_same, number), number - 1)
            )
        if len(raw) > MOST:
            raise _refused(
                f"{file}:{len(result) + 1}", f"a line of more than {MOST:,} bytes", "a JSON object"
            )
    return result


def table(run: Path, name: str) -> pyarrow.Table:
    """A file of lines as an Arrow table; what a line does not have is null. Raises ScenarioError as `lines`
    does."""
    import pyarrow.json

    rows = lines(run, name)
    if not rows:
        return pyarrow.table({key: [] for key in LINES[name].model_fields})
    # Not pyarrow.table, which for lists imports pandas where that is installed.
    text = "\n".join(json.dumps(row) for row in rows).encode()
    at_once = pyarrow.json.ReadOptions(block_size=len(text) + 1)
    return pyarrow.json.read_json(io.BytesIO(text), at_once)


def _same(number: int, _: Sequence[Any]) -> int:
    return number


@dataclass(frozen=True)
class Samples:
    """What a run's model made: PNG files and texts, by round."""

    grids: list[tuple[int, bytes]]
    texts: list[tuple[int, str]]
    pictures: bytes | None  # of an augmentation
    reconstructions: bytes | None  # the last sheet of what an autoencoder makes of pictures
    attack: bytes | None  # the last sheet of what an attacker made of activations
    of: int  # how many grids there are, shown or not
    left_out: list[str]  # files that are not what their names say


def samples(run: Path, most: int) -> Samples:
    """Of the grids at most so many, the first and the last among them; of the texts those two."""
    left_out: list[str] = []

    def read(files: Sequence[tuple[int, Path]], how: Callable[[Path, Path], Any]) -> list[tuple[int, Any]]:
        result = []
        for round_, file in files:
            try:
                result.append((round_, how(run, file)))
            except ScenarioError as e:
                left_out.extend(e.problems)
        return result

    grids = _by_round(run, "round-*.png")
    texts = _by_round(run, "round-*.txt")
    step = max(1, math.ceil((len(grids) - 1) / max(1, most - 1)))
    chosen = [grid for i, grid in enumerate(grids) if i % step == 0 or i == len(grids) - 1]
    painted = [(0, file)] if os.path.lexists(file := run / "samples" / "pictures.png") else []
    last = [_by_round(run, f"{name}-*.png")[-1:] for name in ("reconstructions", "attack")]
    first_and_last = list(dict.fromkeys((*texts[:1], *texts[-1:])))
    shown = read(chosen, _png)
    written = read(first_and_last, lambda run, file: text(run, str(file.relative_to(run))))
    pictures, reconstructions, attack = (
        next((png for _, png in read(files, _png)), None) for files in (painted, *last)
    )
    return Samples(shown, written, pictures, reconstructions, attack, len(grids), left_out)


def _by_round(run: Path, pattern: str) -> list[tuple[int, Path]]:
    """A run's samples whose names are ours."""
    named = ((ROUND.fullmatch(file.stem), file) for file in (run / "samples").glob(pattern))
    return sorted((int(match[1]), file) for match, file in named if match)


def _png(run: Path, file: Path) -> bytes:
    raw = _bytes(run, file)
    try:
        with Image.open(io.BytesIO(raw or b""), formats=["PNG"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # all of them Pillow's
        raise _refused(file, "a file that is not a whole PNG", "one") from None
    assert raw is not None
    return raw


def _is_there(run: Path, file: Path) -> bool:
    """Raises ScenarioError for what is no file, or outside."""
    inside(run, file)
    if not file.exists():
        return False
    if not file.is_file():
        raise _refused(file, "a folder, or something else that is no file", "a file")
    return True


def _bytes(run: Path, file: Path, most: int = MOST) -> bytes | None:
    try:
        if not _is_there(run, file):
            return None
        if (size := file.stat().st_size) > most:
            raise _refused(file, f"{size:,} bytes", f"at most {most:,}")
        return file.read_bytes()
    except OSError as e:
        raise _refused(file, e.strerror or str(e), "a file that can be read") from None


def _decoded(file: Path, raw: bytes, line: int = 1) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise _refused(
            f"{file}:{line + raw[: e.start].count(10)}", "bytes that are not UTF-8", "UTF-8"
        ) from None


def _shaped(
    file: Path, source: str, shape: type[Shape], line: Callable[[Sequence[Any]], int], before: int
) -> dict[str, Any]:
    """The object in a text, which lies `before` lines into its file, as it stands there; what is no finite
    number is null."""
    try:
        value = json.loads(
            source.rstrip("\n"), parse_constant=lambda _: None, parse_float=_float, parse_int=_int
        )
        shape.model_validate(value)
    except json.JSONDecodeError as e:
        raise _refused(
            f"{file}:{before + e.lineno}", f"text that is no JSON ({e.msg})", "a JSON object"
        ) from None
    except RecursionError:
        raise _refused(f"{file}:{line(())}", "JSON that is nested too deeply", "a JSON object") from None
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        path = first["loc"]
        missing = first["type"] == "missing"
        where = f"{file}:{line(path[:-1] if missing else path)}"
        key = ".".join(map(str, path))
        expected = (
            "this key"
            if missing
            else first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        )
        got = "nothing" if missing else kind_of(first["input"])
        raise _refused(f"{where}: {key}" if key else where, got, expected) from None
    return dict(value)


def _line_of(source: str, path: Sequence[Any]) -> int:
    """The line of a key in JSON: the first place after its parents where it is named."""
    at = 0
    for key in path:
        result = source.find(json.dumps(key), at) if isinstance(key, str) else -1
        at = result if result >= 0 else at
    return source.count("\n", 0, at) + 1


def _float(digits: str) -> float | None:
    value = float(digits)
    return value if abs(value) <= LARGEST else None


def _int(digits: str) -> int | None:
    return int(digits) if len(digits) <= 19 else None


def _refused(where: object, got: str, expected: str) -> ScenarioError:
    return ScenarioError([printable(f"{where}: got {got}, expected {expected}")])
