"""What every `data` section has."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.augment import AnyAugment
from fedray.scenario.base import Refused
from fedray.scenario.kinds import KindSection
from fedray.scenario.partition import AnyPartition


class DataSection(KindSection):
    """What every source's section has, and what others need to know of it."""

    kind: str = Field(description="The source.")
    partition: AnyPartition = Field(description="Which client has which samples.")
    augment: list[AnyAugment] = Field(
        default=[],
        description="How images are changed at random while they are trained on, one after the other; in "
        "every step anew, and never those that are tested on.",
    )
    holdout: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="The share of every client's samples, drawn once, that nobody trains on. In each round "
        "that is evaluated every client measures the global model on its own, and only numbers leave it: "
        "eval_holdout_* in metrics. None: none.",
    )

    # what `check` looks at instead of opening samples that take long to open: `module:function` of (section,
    # the scenario's folder), which raises Refused for what is missing
    verify_files: ClassVar[str | None] = None
    has_test_set: ClassVar[bool] = True  # whether some of its samples are kept to test on
    of_text: ClassVar[bool] = False  # whether its samples are tokens, not images
    has_conversations: ClassVar[bool] = False  # whether its samples are turns of speech, not tokens yet
    has_environments: ClassVar[bool] = False  # whether its samples are requests in clients' environments
    needs_captions: ClassVar[bool] = False  # whether each sample's caption is the user's own
    # whether its samples have columns beside what is learnt, which `Samples.column` gives
    has_columns: ClassVar[bool] = False
    names_columns: ClassVar[bool] = False  # whether a column may name a picture beside each sample
    called: ClassVar[str] = "samples"  # what its samples are called in messages
    names_of_labels: ClassVar[dict[str, str]] = {}  # by label, what captions call it
    # whether it has equally many samples of each label, so that a partition by label is known before
    labels_known_before_download: ClassVar[bool] = False

    # whether images are padded to the model's size, or come in several shapes; otherwise they are cut
    pads: ClassVar[bool] = False
    in_buckets: ClassVar[bool] = False

    @property
    def has_images(self) -> bool:
        """Whether its samples are images."""
        return not (self.of_text or self.has_conversations or self.has_environments)

    def clients_at_sites(self) -> dict[str, list[int]]:
        """Clients by the site whose samples they are; empty where samples may be opened anywhere."""
        return {}

    @property
    def may_download(self) -> bool:
        """Whether samples that are not there are downloaded."""
        return False

    def without_captions(self) -> "DataSection":
        """The same, for a learner that reads no captions: none has to be there."""
        return self

    def quick(self) -> "DataSection":
        """The same, as it is opened to see whether its files are there."""
        return self


class FittedImages(DataSection):
    """Images of any shape."""

    fit: Literal["crop", "pad", "bucket"] = Field(
        default="crop",
        description="How images become as large as the model wants them. crop: the shorter side is scaled, "
        "the middle cut out. pad: the longer side is scaled, the rest is white. bucket: each is cut as "
        "little as one of several shapes of at most as many pixels allows, and a batch has images of one "
        "shape (text_to_image on a U-Net; Podell et al. 2023).",
    )

    @property
    def pads(self) -> bool:  # type: ignore[override]
        return self.fit == "pad"

    @property
    def in_buckets(self) -> bool:  # type: ignore[override]
        return self.fit == "bucket"

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.in_buckets:
            yield "podell2024sdxl"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if not self.in_buckets:
            return
        expected = "crop or pad"
        if not scenario.model.takes_buckets:
            got = f"bucket for a {scenario.model.kind}"
            yield Refused(".fit", got, f"{expected}: all that it takes has one size")
        if scenario.topology.splits_model:
            yield Refused(".fit", "bucket in a split", f"{expected}: what is sent there has one size")
        if scenario.runtime.gang > 1:
            got = f"bucket with runtime.gang {scenario.runtime.gang}"
            yield Refused(".fit", got, f"{expected}: clients' batches go through the model as one")
        if scenario.privacy is not None and scenario.privacy.in_local_update:
            got = f"bucket with privacy {scenario.privacy.kind}"
            yield Refused(".fit", got, f"{expected}: each batch is to be drawn from all samples")
