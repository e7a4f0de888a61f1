"""`data`: whose images or texts, their captions, and which client has which."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import FilePath, Refused, Section
from fedray.scenario.data_section import DataSection, FittedImages
from fedray.scenario.huggingface import HuggingFace
from fedray.scenario.instructions import Instructions
from fedray.scenario.kinds import OpenKind
from fedray.scenario.partition import AnyPartition, ByLabel
from fedray.scenario.service import Service
from fedray.scenario.sites import FolderName, Sites, clients_at
from fedray.scenario.sites import conflicts as site_conflicts


class ImageFolder(FittedImages):
    """Images in folders, with their captions beside them: in `metadata.jsonl`, `metadata.csv` or
    `metadata.parquet` (keys `file_name` and `text`), as Hugging Face's imagefolder has them, or each in a
    text of its image's name (`1.txt` of `1.png`)."""

    kind: Literal["image_folder"] = Field(description="image_folder: images and captions of your own.")
    path: FilePath = Field(
        description="The folder that holds the folders of images, relative to the scenario's file; or "
        "shipped:NAME, data inside the package."
    )
    folders: Annotated[list[FolderName], Field(min_length=1)] | None = Field(
        default=None, description="Read only these of its folders. None: all of them."
    )
    partition: AnyPartition = Field(
        description="Which client has which samples. An image's label is the name of its folder."
    )
    caption_key: str = Field(
        default="text", description="The key of the caption in metadata.jsonl, or the column."
    )
    caption: str | None = Field(
        default=None,
        description="The caption of images that have none. None: each image needs one, where captions are "
        "used.",
    )
    sites: Sites | None = Field(
        default=None,
        description="Images that may not leave their sites: for each site, by its name, the folders there. "
        "Clients are numbered in this order. None: any node may open any folder.",
    )

    implementation: ClassVar[str] = "fedray.data.image_folder:ImageFolderSource"
    has_test_set: ClassVar[bool] = False
    needs_captions: ClassVar[bool] = True
    names_columns: ClassVar[bool] = True

    def clients_at_sites(self) -> dict[str, list[int]]:
        return clients_at(self.sites)

    def without_captions(self) -> "ImageFolder":
        return self if self.caption is not None else self.model_copy(update={"caption": ""})

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if "shipped:ink" in self.path:
            yield "xiao2017fashion"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if self.folders is not None and len(set(self.folders)) < len(self.folders):
            yield Refused(".folders", ", ".join(self.folders), "each folder once")
        if self.sites is None:
            return
        yield from site_conflicts(self.sites, scenario)
        if scenario.evaluation.quality:
            expected = "none: images at sites stay there"
            yield Refused("evaluation.quality", "some beside data.sites", expected)
        if self.folders is not None:
            yield Refused(".folders", "some beside data.sites", "none: each site names its own")


class LabelCaptioned(DataSection):
    """Images that have no captions but their labels' names."""

    caption_names: dict[str, str] = Field(
        default={}, description="What captions call a label, where that is not its own name."
    )

    @property
    def names_of_labels(self) -> dict[str, str]:  # type: ignore[override]
        return self.caption_names


class FashionMnistMini(LabelCaptioned):
    """2,500 garments of Fashion-MNIST that ship with fedray, captioned like "a photo of a sneaker", and 500
    more to test on."""

    kind: Literal["fashion_mnist_mini"] = Field(description="fashion_mnist_mini: 2,500 shipped garments.")
    partition: ByLabel = Field(description="Which client has which samples.")

    implementation: ClassVar[str] = "fedray.data.fashion_mnist:FashionMnistMiniSource"
    cites: ClassVar[tuple[str, ...]] = ("xiao2017fashion",)


class Downloaded(DataSection):
    """A data set in torchvision's layout, as `torchvision.datasets` leaves it in its root folder."""

    path: FilePath = Field(
        default="data", description="torchvision's root folder, relative to the scenario's file."
    )
    download: bool = Field(default=False, description="Download what is missing there.")
    partition: ByLabel = Field(description="Which client has which samples.")

    labels_known_before_download: ClassVar[bool] = True

    @property
    def may_download(self) -> bool:
        return self.download


class FashionMnist(Downloaded, LabelCaptioned):
    """60,000 garments of 28 x 28 pixels, and 10,000 to test on."""

    kind: Literal["fashion_mnist"] = Field(description="fashion_mnist: the whole of Fashion-MNIST.")
    path: FilePath = Field(
        default="/usr/share/datasets/fashion-mnist",
        description="torchvision's root folder, relative to the scenario's file. The default is where "
        "Debian's package dataset-fashion-mnist puts it.",
    )

    implementation: ClassVar[str] = "fedray.data.fashion_mnist:FashionMnistSource"
    cites: ClassVar[tuple[str, ...]] = ("xiao2017fashion",)


class Cifar(Downloaded, LabelCaptioned):
    """50,000 colour images of 32 x 32 pixels, and 10,000 to test on."""

    kind: Literal["cifar10", "cifar100"] = Field(
        description="cifar10: CIFAR-10, with 10 classes. cifar100: CIFAR-100, with its 100 fine classes."
    )

    implementation: ClassVar[str] = "fedray.data.cifar:CifarSource"
    cites: ClassVar[tuple[str, ...]] = ("krizhevsky2009learning",)


class CelebA(Downloaded):
    """162,770 faces, aligned and cropped, and 19,962 to test on."""

    kind: Literal["celeba"] = Field(description="celeba: faces with attributes.")
    attribute: str = Field(
        default="Male", description="The label of a face: whether it has this one of CelebA's 40 attributes."
    )

    implementation: ClassVar[str] = "fedray.data.celeba:CelebASource"
    labels_known_before_download: ClassVar[bool] = False
    called: ClassVar[str] = "faces"
    cites: ClassVar[tuple[str, ...]] = ("liu2015deep",)


class Bytes(Section):
    """Each byte of UTF-8 is a token; with [MASK] there are 257."""

    kind: Literal["bytes"] = Field(description="bytes: one token per byte.")

    vocabulary: ClassVar[int] = 0  # tokens that are asked for; none are learned


class Bpe(Section):
    """Byte-pair encoding (Sennrich et al. 2016): bytes, and tokens of several bytes that the clients'
    training texts agree on, by merging the most frequent pair of neighbours again and again. Each client
    adds its counts to a sum; what that costs on the network is not counted."""

    kind: Literal["bpe"] = Field(description="bpe: byte-pair encoding, learned from the clients' texts.")
    vocabulary: Annotated[int, Field(ge=258)] = Field(
        description="The number of tokens, of which 257 are [MASK] and the 256 bytes."
    )

    cites: ClassVar[tuple[str, ...]] = ("sennrich2016neural",)


class Text(DataSection):
    """Texts in UTF-8, each cut into samples of `length` tokens, without what is left at its end. A sample's
    label is its file."""

    kind: Literal["text"] = Field(description="text: text files of your own.")
    path: FilePath = Field(
        description="A folder of *.txt files, or one file, relative to the scenario's file; or "
        "shipped:NAME, data inside the package."
    )
    length: Annotated[int, Field(ge=2)] = Field(default=64, description="Tokens per sample.")
    tokenizer: Annotated[Bytes | Bpe, Field(discriminator="kind")] = Field(
        default=Bytes(kind="bytes"), description="How text becomes tokens."
    )
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="The share of every file, at its end, that is kept to test on."
    )
    partition: AnyPartition = Field(
        description="Which client has which samples. With kind folder, and no folders under path, each file "
        "is one client's."
    )

    implementation: ClassVar[str] = "fedray.data.text:TextSource"
    of_text: ClassVar[bool] = True

    def quick(self) -> "Text":
        # A tokenizer is trained by whoever needs its tokens.
        return self.model_copy(update={"tokenizer": Bytes(kind="bytes")})


Data = Annotated[
    ImageFolder
    | HuggingFace
    | Text
    | Instructions
    | FashionMnistMini
    | FashionMnist
    | Cifar
    | CelebA
    | Service,
    Discriminator("kind"),
    OpenKind("source"),
]
