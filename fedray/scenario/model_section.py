"""What every `model` section has."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Refused
from fedray.scenario.kinds import KindSection

Resolution = Annotated[int, Field(ge=8, le=8192)]
Layers = Annotated[int, Field(ge=1, le=1000)]
MOST_WIDE = 65_536  # numbers a token, or channels
Generates = Literal["images", "texts"]


class ModelSection(KindSection):
    """A `model` section: what a user writes, and what others need to know of its learner without importing
    it. The defaults are those of a learner of one's own that is trained on images and measured by its loss.
    """

    kind: str = Field(description="The learner.")

    # `module:function` of (section, the scenario's folder), without torch: the names of the stages between
    # which a split may cut, or None where only the loaded learner can tell.
    stage_names: ClassVar[str | None] = None
    # `module:function` of the same, without torch: raises Refused for a file of the model's that is missing.
    verify_files: ClassVar[str | None] = None
    # `module:function` of (section, the evaluation's, the scenario's folder), without torch: raises Refused
    # for what its samples cannot follow.
    verify_sampling: ClassVar[str | None] = None
    # `module:function` of (section, the scenario's folder), without torch: the folder of the base model, or
    # its name on the hub, of a section with a `base`; None: it begins with no other model.
    base_source: ClassVar[str | None] = None
    # Whether its network is built for the data set's channels, size, labels or tokens.
    built_for_data: ClassVar[bool] = True
    # Names of the parts that a tuning may train, or None where the section alone does not tell.
    tunable_parts: ClassVar[tuple[str, ...] | None] = None
    generates: ClassVar[Generates | None] = None
    hub_task: ClassVar[str | None] = None  # what the Hugging Face hub calls its task; None: it has no name
    learns_labels: ClassVar[bool] = False  # whether it learns labels, and is measured by them
    takes_prompts: ClassVar[bool] = False  # what it generates follows a text
    takes_negative_prompt: ClassVar[bool] = False  # guidance can lead away from a text
    evaluates_on_test_set: ClassVar[bool] = True
    reads_captions: ClassVar[bool] = False  # whether samples need a caption to be trained on
    of_text: ClassVar[bool] = False  # whether its samples are tokens, not images
    of_conversations: ClassVar[bool] = False  # whether its samples are conversations, not tokens or images

    takes_adapters: ClassVar[bool] = False  # whether it has layers that LoRA knows
    # names of sets of layers that may have adapters; None: only the loaded learner can tell
    adapter_targets: ClassVar[tuple[str, ...] | None] = None
    # Whether several clients' batches may go through it as one: it has stages, its values have samples in
    # their first dimension, and no sample's depends on the others.
    trains_in_gangs: ClassVar[bool] = False
    has_frozen_base: ClassVar[bool] = False  # whether it begins with a base model that adapters leave frozen
    takes_new_tokens: ClassVar[bool] = False  # whether its text encoders can learn new tokens
    checkpoints_gradients: ClassVar[bool] = True  # whether it can recompute activations
    # whether evaluation.reference and inference_cost are of images that it makes of captions
    resembles_references: ClassVar[bool] = False
    # whether it takes away noise that was added at a timestep, so that its loss has levels of noise
    denoises: ClassVar[bool] = False
    reads_sites: ClassVar[bool] = False  # whether its data may lie at sites that know nothing of each other
    cuts_by_timestep: ClassVar[bool] = False  # whether the server's part needs nothing of a client's input
    # Whether the pictures that it trained on can be rebuilt from an update: its batches are `images` and
    # `labels`, and its loss has second derivatives.
    inverts_updates: ClassVar[bool] = False
    takes_buckets: ClassVar[bool] = False  # whether images that it trains on may be of several shapes
    acts: ClassVar[bool] = False  # whether its samples are environments, in which it acts
    transmits: ClassVar[bool] = False  # whether it sends images over a channel, and rebuilds them
    trains_home: ClassVar[bool] = False  # whether some of its numbers train and stay with their client

    @property
    def normalizes_batches(self) -> bool:
        """Whether a batch is normalised as a whole, so that it cannot go in parts."""
        return False

    @property
    def follows_uplink(self) -> bool:
        """Whether what it sends over the air in a split is at its uplink's signal-to-noise ratio."""
        return False

    @property
    def condition_column(self) -> str | None:
        """The column of metadata.jsonl that names a condition picture of each sample; None: there is none."""
        return None

    @property
    def takes_condition(self) -> bool:
        """Whether what it generates follows a condition picture beside its text."""
        return False

    @property
    def needs_condition(self) -> bool:
        """Whether there is no condition picture to follow unless one is given."""
        return False

    @property
    def preserved_prompt(self) -> str | None:
        """A prompt whose images shall stay as the base makes them."""
        return None

    @property
    def class_images_from_server(self) -> int:
        """How many class images the server generates for each client."""
        return 0

    def cited_with(self, topology: Any) -> Iterator[str]:
        """Keys of BibTeX entries of what a topology makes of its training."""
        if topology.plans_by_client and self.generates == "images":
            yield "chen2023exploring"

    @property
    def shows_samples(self) -> bool:
        """Whether it has samples to show where a scenario names no prompts."""
        return self.generates == "images" and not self.takes_prompts

    def parts_in(self, folder: Path) -> tuple[str, ...] | None:
        """Names of the parts that a tuning may train, which files may tell; None where only the loaded
        learner can.

        Args:
            folder: where the section's relative paths start.

        Raises:
            Refused: for a file of the model's that is missing.
        """
        return self.tunable_parts

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        tuning = scenario.tuning
        evaluation = scenario.evaluation
        if tuning.has_adapters and not self.takes_adapters:
            yield Refused("tuning.kind", tuning.kind, f"full or partial for {self.kind}")
        sets = self.adapter_targets
        if sets is not None and (name := tuning.named_targets) is not None and name not in sets:
            expected = " or ".join((*sets, "a list of names of layers"))
            yield Refused("tuning.targets", f"{name} for a {self.kind}", expected)
        if evaluation.prompts and not self.takes_prompts:
            expected = "text_to_image or a causal_language model, or none"
            yield Refused("evaluation.prompts", f"some for a {self.kind}", expected)
        if (negative := evaluation.negative_prompt) and not self.takes_negative_prompt:
            expected = "none, or text_to_image as model.kind"
            yield Refused("evaluation.negative_prompt", f"{negative!r:.60} for a {self.kind}", expected)
        if not self.resembles_references:
            for name in ("reference", "inference_cost"):
                if getattr(evaluation, name) is not None:
                    expected = "text_to_image as model.kind, or none"
                    yield Refused(f"evaluation.{name}", f"some for a {self.kind}", expected)
        if evaluation.denoising is not None and not self.denoises:
            expected = "text_to_image or diffusion (one network) as model.kind, or none"
            yield Refused("evaluation.denoising", f"some for a {self.kind}", expected)
        if scenario.sites and not self.reads_sites:
            expected = "text_to_image: labels at one site are unknown elsewhere"
            yield Refused("data.sites", f"sites for a {self.kind}", expected)
        if evaluation.quality and self.generates != "images":
            expected = "a model.kind that generates images, or none"
            yield Refused("evaluation.quality", f"some for a {self.kind}", expected)
        if evaluation.transmission and not self.transmits:
            yield Refused("evaluation.transmission", f"some for a {self.kind}", "a codec, or none")
        if evaluation.exact_match is not None and not self.of_conversations:
            expected = "language_model as model.kind, or none"
            yield Refused("evaluation.exact_match", f"some for a {self.kind}", expected)
        if scenario.training.gradient_checkpointing and not self.checkpoints_gradients:
            yield Refused("training.gradient_checkpointing", True, f"false for a {self.kind}")
        data = scenario.data
        yield from self.conflicts_with_augment(data)
        if data.has_environments == self.acts:
            yield from self.conflicts_with_data(data)
            return
        got = f"{self.kind} on {'environments' if data.has_environments else data.called}"
        yield Refused(".kind", got, "service as data.kind" if self.acts else "agent")

    def conflicts_with_augment(self, data: Any) -> Iterator[Refused]:
        """Which changes of samples it cannot train on."""
        for i, section in enumerate(data.augment):
            key = f"data.augment.{i}"
            if not data.has_images:
                yield Refused(key, f"{section.kind} of {data.called}", "none: they are no images")
            elif (reason := self.unaugmented(section)) is not None:
                yield Refused(key, f"{section.kind} for a {self.kind}", reason)

    def unaugmented(self, section: Any) -> str | None:
        """Why it cannot train on samples that a section of `data.augment` changes, and on which it can; None
        where it can."""
        return None

    def conflicts_with_data(self, data: Any) -> Iterator[Refused]:
        """What samples it cannot learn from."""
        if data.has_conversations != self.of_conversations:
            got = f"{self.kind} on {'conversations' if data.has_conversations else data.called}"
            expected = "data of conversations" if self.of_conversations else "language_model"
            yield Refused(".kind", got, expected)
            return
        if data.of_text and not self.of_text:
            yield Refused(".kind", f"{self.kind} on text", "transformer, or data of images")
