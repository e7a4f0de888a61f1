"""`model.control`: a ControlNet, by which pictures follow a condition beside their text."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count, FilePath, Refused, Section

PART = "controlnet"


class Column(Section):
    """Condition pictures of one's own, such as diffusers' `conditioning_image`."""

    column: Annotated[str, Field(min_length=1)] = Field(
        description="The key in metadata.jsonl of a condition picture: a path as that of file_name. It is "
        "scaled and cut as its picture, which has the same shape."
    )


class Control(Section):
    """A ControlNet (Zhang et al. 2023): a trained copy of the U-Net's encoder that takes a condition picture.
    The base stays frozen."""

    condition: Literal["edges"] | Column = Field(
        description="The condition of a picture. edges: white where brightness changes, black elsewhere, "
        "computed from the training picture by Sobel's filter. `{column: NAME}`: a picture that this key of "
        "a line in metadata.jsonl names."
    )
    edge_threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2,
        description="How steep an edge is at least: the length of Sobel's gradient of brightness, divided by "
        "4, so that a step from black to white has 1.",
    )
    embedding_channels: Annotated[list[Count], Field(min_length=1)] | None = Field(
        default=None,
        description="Channels of the convolutions that embed the condition. Each but the first halves its "
        "sides, down to the latent's. None: [16, 32, 96, 256] for an autoencoder that divides sides by 8 "
        "(diffusers' default), [16, 32, 64] for 4, and twice as many each time for others.",
    )
    examples: FilePath | None = Field(
        default=None,
        description="A folder of pictures with captions, and condition pictures where there is a column, as "
        "in data.path, or shipped:NAME. Sample i follows the condition of picture i, from the first again "
        "after the last, and eval_edge_agreement compares its edges with those of picture i. None: samples "
        "follow an empty drawing.",
    )

    cites: ClassVar[tuple[str, ...]] = ("zhang2023adding",)

    @property
    def column(self) -> str | None:
        """Of metadata.jsonl, that names condition pictures; None where they are computed."""
        return None if self.condition == "edges" else self.condition.column


def conflicts(control: Control | None, scenario: Any) -> Iterator[Refused]:
    """What of tuning and data does not fit a model with or without a ControlNet."""
    data = scenario.data
    if control is not None and control.column is not None and not data.names_columns:
        expected = "edges, or data.kind image_folder, whose metadata.jsonl has columns"
        yield Refused("model.control.condition", f"a column for {data.kind}", expected)
    parts = scenario.tuning.chosen_parts
    if control is None and PART in parts:
        expected = "parts of the base, such as unet, or model.control: {condition: edges}"
        yield Refused("tuning.parts", f"{PART} without model.control", expected)
    if control is not None and (others := [part for part in parts if part != PART]):
        expected = f"[{PART}]: with model.control the base is frozen"
        yield Refused("tuning.parts", ", ".join(others), expected)
