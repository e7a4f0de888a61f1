"""`data`: whose images or texts, their captions, and who holds which."""

import unicodedata
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fedray.scenario.base import Count, FilePath, Name, Positive, Section

FOLDER_PATTERN = r"^[^/\\\x00]*[^./\\\x00][^/\\\x00]*$"  # never a way out of where it lies
# However a keyboard or a file system composes it, as data/folders.py compares names.
FolderName = Annotated[
    str, Field(pattern=FOLDER_PATTERN), AfterValidator(partial(unicodedata.normalize, "NFC"))
]


class ByFolder(Section):
    """One folder a client, in the folders' sorted order."""

    kind: Literal["folder"]


class Iid(Section):
    """Samples dealt at random, in parts that differ by at most one; or `samples` of each client, drawn with
    replacement."""

    kind: Literal["iid"]
    samples: Count | None = None


class Dirichlet(Section):
    """Labels spread unevenly: each label's samples are dealt in shares drawn from Dir(alpha) over the clients
    (Yurochkin et al. 2019), drawn again until each client has `min_samples`. With `samples`, each client
    draws that many, with replacement, from a mix of its own of the K labels, drawn from Dir(alpha K p) for
    their frequencies p: Dir(alpha) over the labels where there are equally many of each. Hsu et al. 2019,
    whose scheme this is, draw from Dir(alpha p), so that their alpha is K times this one (with ten labels,
    theirs of 1 is 0.1 here)."""

    kind: Literal["dirichlet"]
    alpha: Positive
    min_samples: Count = 1
    allow_empty: bool = False  # take the first draw; clients without samples are never asked to train
    samples: Count | None = None


class Shards(Section):
    """Samples sorted by label and cut into equal shards, of which each client has `per_client` (McMahan et
    al. 2017)."""

    kind: Literal["shards"]
    per_client: Count = 2


class Quantity(Section):
    """Samples dealt at random in parts whose sizes are drawn from Dir(alpha) (Li et al. 2022, quantity
    skew)."""

    kind: Literal["quantity"]
    alpha: Positive
    min_samples: Count = 1
    allow_empty: bool = False


class Site(Section):
    """One client a folder. Only hosts on nodes with Ray's label `site=NAME` open them."""

    folders: Annotated[list[FolderName], Field(min_length=1)]
    path: FilePath | None = None  # where they lie on the site's nodes; as data.path


class ImageFolder(Section):
    """Images in folders, captions in `metadata.jsonl` (`file_name` and the caption's key) beside them."""

    kind: Literal["image_folder"]
    path: FilePath  # relative to the scenario's file, or shipped:NAME
    folders: Annotated[list[FolderName], Field(min_length=1)] | None = None  # only these of it
    # labels: the images' folders
    partition: Annotated[ByFolder | Iid | Dirichlet | Shards | Quantity, Field(discriminator="kind")]
    caption_key: str = "text"
    caption: str | None = None  # for images that metadata.jsonl does not name
    # clients are numbered in this order
    sites: Annotated[dict[Name, Site], Field(min_length=1)] | None = None

    def clients_at(self, site: str) -> list[int]:
        """A site's clients, in its folders' order."""
        assert self.sites is not None
        first = 0
        for name, section in self.sites.items():
            if name == site:
                return list(range(first, first + len(section.folders)))
            first += len(section.folders)
        raise KeyError(site)


ByLabel = Annotated[Iid | Dirichlet | Shards | Quantity, Field(discriminator="kind")]


class FashionMnistMini(Section):
    """The shipped 2,500 garments of Fashion-MNIST, captioned "a photo of a sneaker"; 500 more to test on."""

    kind: Literal["fashion_mnist_mini"]
    partition: ByLabel


class Downloaded(Section):
    """A data set in torchvision's layout, as `torchvision.datasets` leaves it in its root folder."""

    path: FilePath = "data"  # that root; relative to the scenario's file
    download: bool = False  # fetch what is missing there
    partition: ByLabel


class FashionMnist(Downloaded):
    """60,000 garments of 28 x 28, 10,000 to test on; by default those of Debian's package
    dataset-fashion-mnist."""

    kind: Literal["fashion_mnist"]
    path: FilePath = "/usr/share/datasets/fashion-mnist"


class Cifar(Downloaded):
    """50,000 colour pictures of 32 x 32 in 10 or 100 (fine) classes, 10,000 to test on."""

    kind: Literal["cifar10", "cifar100"]


class CelebA(Downloaded):
    """162,770 faces, aligned and cropped; 19,962 to test on. Labels: whether a face has `attribute`."""

    kind: Literal["celeba"]
    attribute: str = "Male"


class Bytes(Section):
    """A token a byte of UTF-8, and [MASK]: 257."""

    kind: Literal["bytes"]


class Bpe(Section):
    """Bytes, and tokens of several that the clients' training texts agree on: pairs of neighbours merged, the
    most frequent first (Sennrich et al. 2016), by counts that each text's owner adds to a sum. What that
    costs on the air is not counted."""

    kind: Literal["bpe"]
    vocabulary: Annotated[int, Field(ge=258)]  # tokens, of which [MASK] and 256 bytes


class Text(Section):
    """Texts in UTF-8, each cut into samples of `length` tokens, the rest of it left out. Labels: the
    files."""

    kind: Literal["text"]
    path: FilePath  # a folder of *.txt, or one file; relative to the scenario's file, or shipped:NAME
    length: Annotated[int, Field(ge=2)] = 64  # tokens a sample
    tokenizer: Annotated[Bytes | Bpe, Field(discriminator="kind")] = Bytes(kind="bytes")
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1  # the end of every file, to test on
    # folder: or a file, where flat
    partition: Annotated[ByFolder | Iid | Dirichlet | Shards | Quantity, Field(discriminator="kind")]


Data = Annotated[
    ImageFolder | Text | FashionMnistMini | FashionMnist | Cifar | CelebA, Field(discriminator="kind")
]
