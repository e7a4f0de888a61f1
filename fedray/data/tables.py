"""Tables that the library `datasets` reads: opening one, and what its columns say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedray.data.places import located, verify_exists
from fedray.errors import reason, shortened
from fedray.scenario.base import Refused
from fedray.scenario.huggingface import INSTALL, HuggingFace
from fedray.scenario.plugins import did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset


def verify(section: HuggingFace, folder: Path) -> None:
    """Raises Refused where the library is not installed, or what `path` names is not there; what is in the
    data set takes longer to see."""
    refuse_without_library()
    if section.path is not None:
        verify_exists(section.path, folder, "data.path")


def refuse_without_library() -> None:
    if find_spec("datasets") is None:
        raise Refused("data.kind", "huggingface without the package datasets", INSTALL)


def open_table(section: HuggingFace, folder: Path, key: str) -> Dataset:
    """A split, made ready in the cache of `datasets` where it is not there yet.

    Args:
        section: the scenario's `data`.
        folder: where its relative path starts.
        key: of the section, that names the split.

    Raises:
        Refused: where the data set, its revision, configuration or split are not there, or a file of it
            cannot be read.
    """
    verify(section, folder)
    with _quiet():
        try:
            builder = _builder(section, folder)
            builder.download_and_prepare()
        except Exception as e:  # the hub's, the network's, Arrow's and those of a dozen formats
            raise _refused(section, folder, e) from None
        _refuse_other_revision(section, builder)
        split = getattr(section, key)
        try:
            table: Dataset = builder.as_dataset(split=split)
        except ValueError as e:
            known = list(builder.info.splits or ())
            expected = did_you_mean(split, known) or f"of {', '.join(known)}, one or a part"
            raise Refused(f"data.{key}", f"{split!r} ({reason(e)})", expected) from None
    if not len(table):
        raise Refused(f"data.{key}", f"{split!r}, which has no samples", "at least one")
    return table


def root_of(section: HuggingFace, folder: Path) -> Path | None:
    """The folder below which a table's own names of files start; None for one of the hub."""
    if section.path is None:
        return None
    place = located(section.path, folder, "data.path")
    return place if place.is_dir() else place.parent


def texts(table: Dataset, column: str, key: str) -> list[str]:
    """What a column of texts says of each row.

    Args:
        table: with the column.
        column: its name.
        key: the scenario's, that names it.

    Raises:
        Refused: for a column that is not there or is none of texts, and for a row without a text.
    """
    refuse_unknown(table, column, key)
    if not _is_text(dtype_of(table, column)):
        raise Refused(key, f"{column!r}, a column of {described(table, column)}", "a column of texts")
    return _without_gaps(table, column, key)


def labels(
    table: Dataset, column: str, key: str, names: Sequence[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """What a column of classes says of each row, int64 [n], into names; and the names. Classes that the data
    set names keep its order; others are in that of their values.

    Args:
        table: with the column.
        column: its name.
        key: the scenario's, that names it.
        names: of the labels that there may be; None: those that there are.

    Raises:
        Refused: for a column that is not there, one of fractions or of anything else that no class is called
            by, and for a row without a label, or with one that is none of the names.
    """
    values = classes(table, column, key)
    own = getattr(table.features[column], "names", None)
    if names is None:
        names = list(own) if own is not None else [str(value) for value in sorted(set(values))]
    numbers = {name: i for i, name in enumerate(names)}
    unknown = next((str(value) for value in values if str(value) not in numbers), None)
    if unknown is not None:
        raise Refused(key, f"{column!r} with {shortened(unknown)!r}", f"labels among {_listed(names)}")
    return np.array([numbers[str(value)] for value in values], np.int64), list(names)


def classes(table: Dataset, column: str, key: str) -> list[Any]:
    """What a column says of each row: texts, or whole numbers, or truths, all of one type.

    Args:
        table: with the column.
        column: its name.
        key: the scenario's, that names it.

    Raises:
        Refused: for another column, or a row of which it says nothing.
    """
    refuse_unknown(table, column, key)
    kind = dtype_of(table, column)
    if not (_is_text(kind) or kind == "bool" or kind.startswith(("int", "uint"))):
        expected = "whole numbers, texts, or true and false"
        raise Refused(key, f"{column!r}, a column of {described(table, column)}", expected)
    values = _without_gaps(table, column, key)
    names = getattr(table.features[column], "names", None)
    if names is None:
        return values
    if min(values) < 0:  # how a test set hides its labels
        raise Refused(key, f"{column!r}, with a row that has no label (-1)", "a label for each row")
    return [names[value] for value in values]


def refuse_unknown(table: Dataset, column: str, key: str) -> None:
    """Raises Refused, with a near name, where a table has no such column."""
    names = table.column_names
    if column not in names:
        raise Refused(key, repr(column), did_you_mean(column, names) or f"a column: {_listed(names)}")


def dtype_of(table: Dataset, column: str) -> str:
    """The type of a column's values as `datasets` names it; its own name for what is no plain value."""
    feature = table.features[column]
    return str(getattr(feature, "dtype", type(feature).__name__))


def described(table: Dataset, column: str) -> str:
    """What a column is of, in a message."""
    kind = dtype_of(table, column)
    if kind.startswith(("float", "double", "half", "decimal")):
        return f"fractions ({kind})"
    return shortened(kind)


def values_of(table: Dataset, column: str) -> Any:
    """A column as an Arrow array."""
    return table.select_columns([column]).with_format("arrow")[:].column(column)


def _without_gaps(table: Dataset, column: str, key: str) -> list[Any]:
    values = values_of(table, column)
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        got = f"{column!r}, which says nothing of {values.null_count} samples, the first of them {row}"
        raise Refused(key, got, "a value for each")
    listed: list[Any] = values.to_pylist()
    return listed


def _is_text(kind: str) -> bool:
    return kind in ("string", "large_string", "string_view")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without bars and warnings, which belong to no run's output."""
    import datasets

    bars = not datasets.are_progress_bars_disabled()
    level = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()


def _builder(section: HuggingFace, folder: Path) -> Any:
    import datasets

    if section.path is None:
        # as it stands a name might be a folder's, where the process happens to be, or a format's
        return datasets.load_dataset_builder(
            f"hf://datasets/{section.name}", section.config, revision=section.revision
        )
    place = located(section.path, folder, "data.path")
    if place.is_dir():
        return datasets.load_dataset_builder(str(place.resolve()), section.config)
    return datasets.load_dataset_builder(
        str(place.parent.resolve()), section.config, data_files=escape(place.name)
    )


def _refused(section: HuggingFace, folder: Path, error: Exception) -> Refused:
    """What a user can do about an error of the library's."""
    from huggingface_hub.errors import RevisionNotFoundError

    if isinstance(error, Refused):
        return error
    causes = list(_causes(error))
    why = shortened(reason(causes[-1]), 200)
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
        return Refused("data.revision", repr(section.revision), f"a branch, tag or commit of {section.name}")
    if (other := _other_config(section, folder)) is not None:
        return other
    if section.path is None:
        expected = "a data set of the hub that can be reached, or is in the cache"
        return Refused("data.name", f"{section.name!r} ({why})", expected)
    damaged = _unreadable_parquet(located(section.path, folder, "data.path"))
    if damaged is not None:
        return Refused("data.path", damaged, "parquet files that are whole")
    expected = "files that datasets reads: images, parquet, JSON, CSV, WebDataset"
    return Refused("data.path", f"{section.path!r} ({why})", expected)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what led to it."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _other_config(section: HuggingFace, folder: Path) -> Refused | None:
    """That a configuration has to be named, or is none of the data set's; None where that is not it."""
    import datasets

    place = f"hf://datasets/{section.name}"
    if section.path is not None:
        place = str(located(section.path, folder, "data.path").resolve())
    try:
        known = datasets.get_dataset_config_names(place, revision=section.revision)
    except Exception:  # what was wrong before is still
        return None
    if section.config is None and len(known) > 1:
        return Refused("data.config", "none", f"one of {_listed(known)}")
    if section.config is not None and section.config not in known:
        expected = did_you_mean(section.config, known) or f"one of {_listed(known)}"
        return Refused("data.config", repr(section.config), expected)
    return None


def _unreadable_parquet(place: Path) -> str | None:
    """The first parquet file at a place that has no table in it, and why."""
    from pyarrow.lib import ArrowException
    from pyarrow.parquet import ParquetFile

    files = [place] if place.is_file() else sorted(place.rglob("*"))
    for file in files:
        if file.suffix.lower() in (".parquet", ".pq") and file.is_file():
            try:
                ParquetFile(file).close()
            except (ArrowException, OSError) as e:
                return f"{file}, which cannot be read: {shortened(reason(e), 200)}"
    return None


def _refuse_other_revision(section: HuggingFace, builder: Any) -> None:
    """Offline `datasets` takes the newest revision that is in its cache, whichever is asked for: raises
    Refused where that is another."""
    from datasets.packaged_modules.cache.cache import Cache

    if section.revision is None or not isinstance(builder, Cache) or builder.hash == section.revision:
        return
    if builder.hash == _cached_commit(section):
        return
    got = f"{section.revision!r}, where the hub cannot be reached and the cache has commit {builder.hash}"
    raise Refused("data.revision", got, "that commit, or a way to the hub")


def _cached_commit(section: HuggingFace) -> str | None:
    """The commit that a branch or tag was when the hub was last asked; None where that is not known."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    assert section.name is not None
    assert section.revision is not None
    repository = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=section.name, repo_type="dataset")
    ref = repository / "refs" / section.revision
    try:
        return ref.read_text(encoding="utf-8").strip() if ".." not in ref.parts else None
    except (OSError, ValueError):
        return None
