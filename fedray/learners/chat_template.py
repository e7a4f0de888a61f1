"""Conversations as tokens, by a tokenizer's chat template: which tokens there are, and which of them are the
assistant's. No torch here.

The assistant's are those that the template marks with `{% generation %}`. Of a template without such marks
each of the assistant's turns is what comes behind the text that asks for it (the turns before it, and what
begins an answer): that text has to be a prefix of the whole, and is looked at in every conversation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from fedray.data.places import located
from fedray.errors import printable
from fedray.learners.bases import Base
from fedray.learners.language_bases import without_template
from fedray.scenario.base import Refused
from fedray.scenario.language_model import LanguageModel

MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
Turns = Sequence[tuple[str, str]]  # a role and what is said
PROBE: Turns = (("user", "Which letter comes first?"), ("assistant", "Alpha."))
MARKED = "a template that marks what the assistant says by {% generation %}: a file as model.chat_template"


class EncodedConversation(NamedTuple):
    """A conversation's tokens.

    Attributes:
        ids: of its tokens.
        judged: of each token, whether the assistant has said it.
    """

    ids: list[int]
    judged: list[bool]


@dataclass(frozen=True)
class ChatTemplate:
    """How one base writes conversations.

    Attributes:
        tokenizer: transformers', with a chat template.
        name: of the base, for errors.
    """

    tokenizer: Any
    name: str

    def verify(self) -> None:
        """Raises Refused for a template without roles, or one that cannot be told what the assistant says."""
        key = "model.chat_template"
        if not self.tokenizer.is_fast:
            got = f"{self.name!r}, whose tokenizer is {type(self.tokenizer).__name__}"
            raise Refused("model.base", got, "one with a tokenizer.json, which says where its tokens stand")
        try:
            encoded = self.encode(PROBE)
            if self._same_for_all_roles():
                raise ValueError("got a template without roles")
            if not any(encoded.judged):
                raise ValueError("got a template that marks nothing of an answer")
        except ValueError as e:
            got = str(e).removeprefix("got ").split(", expected ")[0]
            raise Refused(key, f"{got} ({self.name!r})", MARKED) from None

    def encode(self, turns: Turns) -> EncodedConversation:
        """A conversation's tokens, all of them.

        Args:
            turns: that begin with the user, or the system, and end with the assistant.

        Raises:
            ValueError: for a conversation that the template does not allow, or whose answers cannot be told
                from what is asked.
        """
        if MARKS.search(self.tokenizer.chat_template):
            marked = self._apply(turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            return EncodedConversation(marked["input_ids"], [bool(m) for m in marked["assistant_masks"]])
        text = self._apply(turns, tokenize=False)
        spans = self._answers(turns, text)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        # a token that begins before the answer is what asked for it
        judged = [any(start <= first < end for start, end in spans) for first, _ in encoded["offset_mapping"]]
        return EncodedConversation(encoded["input_ids"], judged)

    def prompt(self, turns: Turns) -> list[int]:
        """Tokens of turns that end with the user's, and of what begins an answer. Raises what `encode`
        does."""
        text = self._apply(turns, tokenize=False, add_generation_prompt=True)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def turn_end(self) -> str:
        """What the template writes behind an answer, without white space around it."""
        text: str = self._apply(PROBE, tokenize=False)
        return text.rpartition(PROBE[-1][1])[2].strip()

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end an answer."""
        ids = self.tokenizer(self.turn_end, add_special_tokens=False)["input_ids"] if self.turn_end else []
        own = [] if self.tokenizer.eos_token_id is None else [int(self.tokenizer.eos_token_id)]
        return sorted({*own, *(ids if len(ids) == 1 else [])})

    @property
    def end_text(self) -> str | None:
        """The text that ends an answer, where that is not one token."""
        ids = self.tokenizer(self.turn_end, add_special_tokens=False)["input_ids"] if self.turn_end else []
        return self.turn_end if len(ids) > 1 else None

    @property
    def padding(self) -> int:
        """A token to fill up with, which nothing is judged by."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else (self.tokenizer.eos_token_id or 0)

    def _answers(self, turns: Turns, text: str) -> list[tuple[int, int]]:
        """Where the assistant's turns are in a conversation's text: first character and end of each."""
        spans = []
        for k, (role, content) in enumerate(turns):
            if role != "assistant":
                continue
            if k == 0:
                raise ValueError("got a conversation that begins with the assistant, expected the user first")
            before = self._apply(turns[:k], tokenize=False, add_generation_prompt=True)
            last = k == len(turns) - 1
            behind = text if last else self._apply(turns[: k + 1], tokenize=False)
            if not behind.startswith(before) or not text.startswith(behind):
                got = f"a template in which turn {k + 1} changes what was written before it"
                raise ValueError(f"got {got}, expected {MARKED}")
            if content.strip() and content.strip() not in behind[len(before) :]:
                raise ValueError(f"got a template that leaves out what turn {k + 1} says, expected {MARKED}")
            spans.append((len(before), len(behind)))
        return spans

    def _same_for_all_roles(self) -> bool:
        texts = set()
        for role in ("user", "assistant"):
            try:
                texts.add(self._apply([(role, "A word.")], tokenize=False))
            except ValueError:  # it has roles, and knows who begins
                return False
        return len(texts) == 1

    def _apply(self, turns: Turns, **options: Any) -> Any:
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            return self.tokenizer.apply_chat_template(messages, **options)
        except Exception as e:  # whatever a stranger's template raises
            reason = next(iter(str(e).strip().splitlines()), "") or type(e).__name__
            roles = ", ".join(role for role, _ in turns)
            raise ValueError(
                f"got turns by {roles}, which the chat template does not take ({printable(reason[:200])}), "
                "expected those that it takes"
            ) from None


def open_template(section: LanguageModel, base: Base, folder: Path, here: bool = False) -> ChatTemplate:
    """The tokenizer of a base with the chat template that a scenario chooses.

    Args:
        section: the scenario's `model`.
        base: its base.
        folder: where its relative paths start.
        here: ask no network, even for a base on the hub.

    Raises:
        Refused: where there is no template.
        OSError: where the tokenizer is not on this machine.
        ValueError: where its files are not whole.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # of a conversation that is longer than the model `cut_conversations` says
    tokenizer: Any = AutoTokenizer.from_pretrained(base.source, local_files_only=here or base.local)
    if section.chat_template is not None:
        file = located(section.chat_template, folder, "model.chat_template")
        tokenizer.chat_template = file.read_text(encoding="utf-8")
    if not isinstance(tokenizer.chat_template, str):  # several by name, or none
        named = tokenizer.chat_template
        if not isinstance(named, dict) or "default" not in named:
            raise without_template(section)
        tokenizer.chat_template = named["default"]
    return ChatTemplate(tokenizer, section.base)


def cut_conversations(template: ChatTemplate, conversations: Sequence[Turns], most: int) -> str | None:
    """What a person should know of conversations of more than `most` tokens; None where there are none.

    Raises:
        Refused: for one that the template does not allow, and where nothing is left of any answer.
    """
    longer = 0
    lost = 0
    for i, turns in enumerate(conversations):
        try:
            encoded = template.encode(turns)
        except ValueError as e:
            got, _, expected = str(e).removeprefix("got ").rpartition(", expected ")
            raise Refused("data", f"sample {i}: {got}", expected) from None
        longer += len(encoded.ids) > most
        lost += not any(encoded.judged[1:most])
    if not longer:
        return None
    if lost == len(conversations):
        got = f"{most} tokens, in which no conversation has any of an answer"
        raise Refused("model.max_length", got, "more, or a shorter chat template")
    most_tokens = f"model.max_length, {most} tokens"
    note = f"{longer} of {len(conversations)} conversations have more than {most_tokens}, and are cut"
    return note + (f"; {lost} of them lose all that the assistant says, and teach nothing" if lost else "")
