"""`data`: whose images, their captions, and who holds which."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Name, Section

FOLDER_PATTERN = r"^[^/\\\x00]*[^./\\\x00][^/\\\x00]*$"  # never a way out of where it lies
FolderName = Annotated[str, Field(pattern=FOLDER_PATTERN)]


class ByFolder(Section):
    """One folder a client, in the folders' sorted order."""

    kind: Literal["folder"]


class Iid(Section):
    """Samples dealt at random, in parts that differ by at most one."""

    kind: Literal["iid"]


class Site(Section):
    """One client a folder. Only hosts on nodes with Ray's label `site=NAME` open them."""

    folders: Annotated[list[FolderName], Field(min_length=1)]
    path: str | None = None  # where they lie on the site's nodes; as data.path


class ImageFolder(Section):
    """Images in folders, captions in `metadata.jsonl` (`file_name` and the caption's key) beside them."""

    kind: Literal["image_folder"]
    path: str  # relative to the scenario's file, or shipped:NAME
    partition: Annotated[ByFolder | Iid, Field(discriminator="kind")]
    caption_key: str = "text"
    caption: str | None = None  # for images that metadata.jsonl does not name
    sites: Annotated[dict[Name, Site], Field(min_length=1)] | None = None  # clients are numbered in this order

    def clients_at(self, site: str) -> list[int]:
        """A site's clients, in its folders' order."""
        assert self.sites is not None
        first = 0
        for name, section in self.sites.items():
            if name == site:
                return list(range(first, first + len(section.folders)))
            first += len(section.folders)
        raise KeyError(site)


class FashionMnistMini(Section):
    """The shipped 2,500 garments of Fashion-MNIST, captioned "a photo of a sneaker"."""

    kind: Literal["fashion_mnist_mini"]
    partition: Iid


Data = Annotated[ImageFolder | FashionMnistMini, Field(discriminator="kind")]
