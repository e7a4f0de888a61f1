"""Conversations: samples of text that a language model answers in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from fedray.data.samples import Samples


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
    """

    conversations: Sequence[Conversation]
    labels: np.ndarray
    label_names: Sequence[str]
    groups: Sequence[str]

    has_images: ClassVar[bool] = False
    captions_follow: ClassVar[bool] = True

    def conversation(self, i: int) -> Conversation:
        return self.conversations[i]

    @cached_property
    def captions(self) -> Sequence[str]:
        """Each conversation as a person reads it, a line a turn."""
        return ["\n".join(f"{role}: {content}" for role, content in c) for c in self.conversations]

    def contents(self) -> Iterator[bytes]:
        for conversation in self.conversations:
            yield repr([tuple(message) for message in conversation]).encode()
