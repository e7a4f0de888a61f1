"""`tuning: textual_inversion`: new tokens of the text encoders' vocabulary train and travel, nothing else."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count, Refused
from fedray.scenario.tuning_section import PAYLOAD, Payload, TuningSection


class TextualInversion(TuningSection):
    """Textual inversion (Gal et al. 2023): new rows of the text encoders' token table, which name what the
    images show; only they train and travel."""

    kind: Literal["textual_inversion"] = Field(description="textual_inversion: rows for a new token.")
    token: Annotated[str, Field(pattern=r"^<[a-z0-9-]+>$")] = Field(
        description="The new token, such as <ink>: small letters, digits and hyphens in angle brackets. "
        "Captions and prompts may contain it."
    )
    stands_for: Annotated[str, Field(pattern=r"^\w+( \w+)*$")] | None = Field(
        default=None,
        description="Words of captions and prompts that the token takes the place of, in capitals or not. "
        "None: captions contain the token itself.",
    )
    initializer: Annotated[str, Field(min_length=1)] = Field(
        description="A word of the vocabulary, one token long, whose row the new rows begin with."
    )
    vectors: Count = Field(
        default=1, description="New rows, each of which takes a place in the text like a token (Sec. 4)."
    )
    payload: Payload | None = Field(default=None, description=PAYLOAD)

    implementation: ClassVar[str] = "fedray.tuning.textual_inversion:TextualInversionTuning"
    verify_base: ClassVar[str | None] = "fedray.learners.base_texts:verify_new_tokens"
    cites: ClassVar[tuple[str, ...]] = ("gal2023image",)

    def named(self, text: str) -> str:
        """With the token in the place of the words that it stands for."""
        if self.stands_for is None:
            return text
        either = rf"{re.escape(self.token)}|\b{re.escape(self.stands_for)}\b"
        return re.sub(either, self.token, text, flags=re.IGNORECASE)

    def spelled(self, text: str) -> str:
        """With the initializer, which is one token long, in the place of each vector."""
        return self.named(text).replace(self.token, f" {' '.join([self.initializer] * self.vectors)} ")

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if not scenario.model.takes_new_tokens:
            expected = "one that the model has: new tokens need model.kind text_to_image"
            yield Refused(".kind", f"{self.kind} for a {scenario.model.kind}", expected)
