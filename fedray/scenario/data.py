"""`data`: whose images, their captions, and who holds which."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Section


class ByFolder(Section):
    """One folder a client, in the folders' sorted order."""

    kind: Literal["folder"]


class Iid(Section):
    """Samples dealt at random, in parts that differ by at most one."""

    kind: Literal["iid"]


class ImageFolder(Section):
    """Images in folders, captions in `metadata.jsonl` (`file_name` and the caption's key) beside them."""

    kind: Literal["image_folder"]
    path: str  # relative to the scenario's file, or shipped:NAME
    partition: Annotated[ByFolder | Iid, Field(discriminator="kind")]
    caption_key: str = "text"
    caption: str | None = None  # for images that metadata.jsonl does not name


class FashionMnistMini(Section):
    """The shipped 2,500 garments of Fashion-MNIST, captioned "a photo of a sneaker"."""

    kind: Literal["fashion_mnist_mini"]
    partition: Iid


Data = Annotated[ImageFolder | FashionMnistMini, Field(discriminator="kind")]
