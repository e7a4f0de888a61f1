"""`data: instructions`: conversations in JSON lines, which a language model learns to answer in."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import FilePath, Fraction, Refused
from fedray.scenario.data_section import DataSection
from fedray.scenario.partition import AnyPartition
from fedray.scenario.sites import Sites, clients_at
from fedray.scenario.sites import conflicts as site_conflicts

HELD_OUT = 0.1  # where nothing else is said


class AlpacaSection(DataSection):
    """Conversations some of which may be in Alpaca's form."""

    input: Literal["alpaca", "append", "alone", "ignore"] = Field(
        default="alpaca",
        description="What becomes of an Alpaca line's input. alpaca: it follows the instruction under "
        "Alpaca's heading, and a system turn has the first sentences of Alpaca's prompt. append: it follows "
        "the instruction and a space (as in OpenFedLLM, and in FlowerTune's finance and code). alone: it "
        "stands in the instruction's place (as in both's medical). ignore: it is left out (as in "
        "FlowerTune's general). A line without an input is its instruction.",
    )


class Instructions(AlpacaSection):
    """Conversations in files of JSON lines, one a line, in TRL's forms, `messages`, or `prompt` and
    `completion`, or in Alpaca's, `instruction`, `input` and `output`."""

    kind: Literal["instructions"] = Field(description="instructions: conversations of your own.")
    path: FilePath = Field(
        description="A folder of *.jsonl files, or one file, relative to the scenario's file; or "
        "shipped:NAME, data inside the package."
    )
    partition: AnyPartition = Field(
        description="Which client has which conversations. With kind folder each of path's folders is one "
        "client's, and each file that lies in none. A conversation's label is its file, or what `category` "
        "says."
    )
    category: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="The key of a line that says of what category it is, for a partition by label. None: "
        "each file is one.",
    )
    held_out: Fraction | None = Field(
        default=None,
        description="The share of every client's folder, file or column value that is kept to test on, drawn "
        "by a hash of what is said; `holdout` is a share that clients measure themselves. None: 0.1 where "
        "there is neither `test`, `sites` nor `holdout`, else 0.",
    )
    test: FilePath | None = Field(
        default=None,
        description="A folder of *.jsonl files, or one file, to test on. None: what is held out.",
    )
    sites: Sites | None = Field(
        default=None,
        description="Conversations that may not leave their sites: for each site, by its name, the folders "
        "there. Clients are numbered in this order. None: any node may open any file.",
    )

    implementation: ClassVar[str] = "fedray.data.instructions:InstructionsSource"
    has_conversations: ClassVar[bool] = True
    has_columns: ClassVar[bool] = True
    called: ClassVar[str] = "conversations"

    @property
    def held_out_share(self) -> float:
        """Of the conversations under `path`, that nobody trains on."""
        if self.held_out is not None:
            return self.held_out
        others = (self.test, self.sites, self.holdout)
        return HELD_OUT if all(other is None for other in others) else 0.0

    @property
    def has_test_set(self) -> bool:  # type: ignore[override]
        return self.test is not None or self.held_out_share > 0

    def clients_at_sites(self) -> dict[str, list[int]]:
        return clients_at(self.sites)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.test is not None and self.held_out:
            yield Refused(".held_out", f"{self.held_out:g} beside data.test", "one of the two")
        if self.sites is not None:
            yield from site_conflicts(self.sites, scenario)
            if self.held_out:
                expected = "none: data.holdout keeps a share of each client's, which stays there"
                yield Refused(".held_out", f"{self.held_out:g} beside data.sites", expected)
            if self.category is not None:
                expected = "none: what a site's lines say is unknown elsewhere"
                yield Refused(".category", f"{self.category!r} beside data.sites", expected)
