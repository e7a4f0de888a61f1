"""`data: huggingface`: a data set of the Hugging Face hub, or in a folder that its library reads."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import FilePath, Refused, Section
from fedray.scenario.data_section import FittedImages
from fedray.scenario.instructions import AlpacaSection

INSTALL = "pip install 'fedray[huggingface]'"
HUB_NAME = r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$"
ColumnName = Annotated[str, Field(min_length=1)]
# the columns that samples are made of, of which there is one form
FORMS = (("image",), ("messages",), ("prompt", "completion"), ("instruction", "output"), ("text",))
# what a form may have beside them
OPTIONAL = {("image",): ("caption",), ("instruction", "output"): ("input",)}


class Columns(Section):
    """Which column of the data set is what."""

    image: ColumnName | None = Field(
        default=None,
        description="Images, or their files' bytes; of a data set at `path` also names of files below it. "
        "None: samples are no images.",
    )
    caption: ColumnName | None = Field(
        default=None,
        description="What each image shows. None: it is made of the label's name, as 'a photo of a shoe'.",
    )
    label: ColumnName | None = Field(
        default=None,
        description="Classes: names, whole numbers, or true and false; of conversations their category. "
        "None: all have one label.",
    )
    messages: ColumnName | None = Field(
        default=None,
        description="Conversations, each a list of a `role` and its `content`, turn by turn. None: another.",
    )
    prompt: ColumnName | None = Field(
        default=None, description="What a user says, beside `completion`. None: another."
    )
    completion: ColumnName | None = Field(
        default=None, description="What the assistant answers. None: another."
    )
    instruction: ColumnName | None = Field(
        default=None,
        description="What a user asks for, beside `output` (Alpaca, Taori et al. 2023). None: another.",
    )
    input: ColumnName | None = Field(
        default=None, description="What comes with an instruction. None: nothing."
    )
    output: ColumnName | None = Field(default=None, description="What the assistant answers. None: another.")
    text: ColumnName | None = Field(
        default=None,
        description="Texts without roles: each is one turn of the assistant's, learnt whole. None: another.",
    )

    @property
    def of_conversation(self) -> dict[str, str]:
        """The columns of a conversation, by what they are."""
        named = {key: getattr(self, key) for form in FORMS[1:] for key in (*form, *OPTIONAL.get(form, ()))}
        return {key: column for key, column in named.items() if column is not None}

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        named = [form for form in FORMS if any(getattr(self, key) is not None for key in form)]
        if len(named) != 1:
            got = " beside ".join(form[0] for form in named) or "none of samples"
            expected = "one of image, messages, prompt with completion, instruction with output, and text"
            yield Refused("data.columns", got, expected)
            return
        (form,) = named
        if missing := [key for key in form if getattr(self, key) is None]:
            there = next(key for key in form if key not in missing)
            yield Refused("data.columns", f"{there} without {missing[0]}", " and ".join(form))
        for of, keys in OPTIONAL.items():
            for key in keys:
                if of != form and getattr(self, key) is not None:
                    got = f"{getattr(self, key)!r} without {of[0]}"
                    yield Refused(f"data.columns.{key}", got, f"none, or columns.{of[0]}")


class HuggingFace(FittedImages, AlpacaSection):
    """A data set of the Hugging Face hub, or a folder (or one file) that its library `datasets` reads: images
    in folders, parquet, JSON, CSV, WebDataset. It is downloaded when it is first opened, and kept in the
    cache of `datasets`; with HF_HUB_OFFLINE=1 the cache and local files have to do. What it holds is compared
    when a run goes on, whichever revision it came from."""

    kind: Literal["huggingface"] = Field(description="huggingface: what the library `datasets` reads.")
    name: Annotated[str, Field(pattern=HUB_NAME, max_length=200)] | None = Field(
        default=None, description="owner/name on the hub. None: `path` says where it lies."
    )
    path: FilePath | None = Field(
        default=None,
        description="A folder or a file instead, relative to the scenario's file. None: `name` says.",
    )
    revision: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Branch, tag or commit on the hub. None: the newest, main."
    )
    config: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Of a data set that has several configurations, which. None: its default."
    )
    split: Annotated[str, Field(min_length=1)] = Field(
        default="train", description="The split to train on; a part of one as 'train[:1000]'."
    )
    test_split: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The split to test on. None: there is none."
    )
    columns: Columns = Field(description="Which column is what.")
    channels: Literal[1, 3] | None = Field(
        default=None, description="1: images in grey. 3: in colour. None: as the first image is."
    )
    streaming: bool = Field(
        default=False, description="Refused: who has which sample is dealt before the first round."
    )

    implementation: ClassVar[str] = "fedray.data.huggingface:HuggingFaceSource"
    verify_files: ClassVar[str | None] = "fedray.data.tables:verify"
    has_columns: ClassVar[bool] = True
    cites: ClassVar[tuple[str, ...]] = ("lhoest2021datasets",)

    @property
    def has_test_set(self) -> bool:  # type: ignore[override]
        return self.test_split is not None

    @property
    def has_conversations(self) -> bool:  # type: ignore[override]
        return self.columns.image is None

    @property
    def needs_captions(self) -> bool:  # type: ignore[override]
        return self.columns.caption is not None

    @property
    def called(self) -> str:  # type: ignore[override]
        return "conversations" if self.has_conversations else "images"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if (self.name is None) == (self.path is None):
            got = "neither name nor path" if self.name is None else "name and path"
            yield Refused("data", got, "name, of the hub, or path, of a folder or a file")
        if self.revision is not None and self.name is None:
            yield Refused(".revision", f"{self.revision!r} of files at path", "none, or data.name")
        if self.streaming:
            expected = (
                "false: which client has which sample is dealt before the first round, from how many there"
                " are and what their labels say, and workers open samples by their number"
            )
            yield Refused(".streaming", True, expected)
        yield from self._without_column(scenario)

    def _without_column(self, scenario: Any) -> Iterator[Refused]:
        """What needs a column that is not named."""
        columns = self.columns
        if columns.label is None:
            if self.partition.by_label:
                got = f"{self.partition.kind} without data.columns.label"
                yield Refused(".partition.kind", got, "a column of labels, or a partition without labels")
            if scenario.model.learns_labels:
                expected = f"a column of labels, which a {scenario.model.kind} learns"
                yield Refused(".columns.label", "none", expected)
            if scenario.model.reads_captions and columns.image is not None and columns.caption is None:
                expected = "a column of captions, or columns.label, whose names they are made of"
                yield Refused(".columns.caption", "none", expected)
        if self.partition.by_folder:
            expected = "column, with the column that says whose each sample is, or another"
            yield Refused(".partition.kind", "folder for a data set without folders", expected)
        if self.input != "alpaca" and columns.instruction is None:
            yield Refused(".input", self.input, "none without columns.instruction")
        if columns.image is None:
            if self.channels is not None:
                yield Refused(".channels", self.channels, "none for conversations")
            if self.fit != "crop":
                yield Refused(".fit", self.fit, "none for conversations")
