"""Conversations in columns of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedray.data.conversations import Conversation, Conversations, Message
from fedray.data.instruction_forms import Unfit, conversation
from fedray.data.tables import classes, refuse_unknown
from fedray.scenario.base import Refused
from fedray.scenario.huggingface import HuggingFace

if TYPE_CHECKING:
    from datasets import Dataset

AT_ONCE = 1000  # rows that are read in one go


def conversations(
    table: Dataset, section: HuggingFace, labels: np.ndarray, label_names: Sequence[str]
) -> Conversations:
    """What a table's columns say, a conversation a row.

    Args:
        table: with the columns.
        section: the scenario's `data`, which names them.
        labels: int64 [n], into `label_names`.
        label_names: what the labels are called.

    Raises:
        Refused: for a column that is not there, and a row that is no conversation to learn from.
    """
    columns = section.columns.of_conversation
    for key, column in columns.items():
        refuse_unknown(table, column, f"data.columns.{key}")
    read = tuple(_read(table, columns, section.input))
    by = section.partition.by_column
    said = {} if by is None else {by: classes(table, by, "data.partition.column")}
    return Conversations(read, labels, label_names, [""] * len(read), said)


def _read(table: Dataset, columns: dict[str, str], given: str) -> Iterator[Conversation]:
    alone = table.select_columns(sorted(set(columns.values())))
    for start in range(0, len(alone), AT_ONCE):
        values = alone[start : start + AT_ONCE]
        for i in range(len(next(iter(values.values())))):
            row = {key: values[column][i] for key, column in columns.items()}
            try:
                yield _turn(row["text"]) if "text" in row else conversation(row, given)
            except Unfit as e:
                key = next(iter(columns))
                raise Refused(f"data.columns.{key}", f"row {start + i}: {e.got}", e.expected) from None


def _turn(text: Any) -> Conversation:
    """A text without roles."""
    if not isinstance(text, str) or not text.strip():
        raise Unfit(
            "no text" if isinstance(text, str) else f"a {type(text).__name__}", "texts that say something"
        )
    return (Message("assistant", text),)
