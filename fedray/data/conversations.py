"""Conversations: samples of text that a language model answers in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from fedray.data.samples import Samples
from fedray.scenario.base import Refused


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str  # system, user or assistant
    content: str


Conversation = tuple[Message, ...]


@dataclass(frozen=True, eq=False)
class Conversations(Samples):
    """Conversations, each of which ends with the assistant's turn; what the assistant says is learnt.

    Attributes:
        conversations: one a sample.
        labels: int64 [n], of each sample's category, into `label_names`.
        label_names: what the categories are called.
        groups: whose each sample is, where folders, files or a column are clients.
        columns: what is said of each sample beside its conversation, by name [n].
    """

    conversations: Sequence[Conversation]
    labels: np.ndarray
    label_names: Sequence[str]
    groups: Sequence[str]
    columns: Mapping[str, Sequence[str | int]] = field(default_factory=dict)

    has_images: ClassVar[bool] = False
    captions_follow: ClassVar[bool] = True

    def conversation(self, i: int) -> Conversation:
        return self.conversations[i]

    @cached_property
    def captions(self) -> Sequence[str]:
        """Each conversation as a person reads it, a line a turn."""
        return ["\n".join(f"{role}: {content}" for role, content in c) for c in self.conversations]

    def column(self, name: str) -> Sequence[str | int]:
        if name not in self.columns:
            expected = f"one of {', '.join(self.columns)}" if self.columns else "data with columns"
            raise Refused("data.partition.column", repr(name), expected)
        return self.columns[name]

    def contents(self) -> Iterator[bytes]:
        for conversation in self.conversations:
            yield repr([tuple(message) for message in conversation]).encode()
