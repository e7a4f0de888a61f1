"""`evaluation`: what is measured and shown, and how often."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fedray.scenario.base import Count, FilePath, NotNegative, Positive, Refused, Section
from fedray.scenario.client_tests import ClientTests
from fedray.scenario.features import OneOrMore
from fedray.scenario.features import conflicts as conflicts_of_features
from fedray.scenario.kinds import KindSection, OpenKind
from fedray.scenario.leakage import Leakage
from fedray.scenario.lm_eval import LmEval
from fedray.scenario.sites import FolderName
from fedray.scenario.stopping import BestByName, EarlyStopping, Watched
from fedray.scenario.transmission import Transmission


class Reference(Section):
    """Held-out images that generated ones should come to resemble, compared in the features of a judge."""

    path: FilePath = Field(
        description="A folder of images and captions, relative to the scenario's file; or shipped:NAME."
    )
    folders: Annotated[list[FolderName], Field(min_length=1)] | None = Field(
        default=None, description="Read only these of its folders. None: all that is in it."
    )
    judge: FilePath = Field(
        default="shipped:garments",
        description="The classifier whose features are compared: a safetensors file, relative to the "
        "scenario's file, or shipped:NAME.",
    )
    caption_key: str = Field(
        default="text", description="The key of the caption in the folder's metadata.jsonl."
    )
    images_per_caption: Count = Field(
        default=5, description="How many images are generated for each of the folder's captions."
    )
    plain_prompts: bool = Field(
        default=True,
        description="Also measure how well the judge recognises images of plain prompts (a photo of a ...), "
        "which shows what the new style costs.",
    )

    class_prompt: str | None = Field(
        default=None,
        description="Also measure how far images of this prompt are from the base's own, such as: a photo of "
        "a bag, where one bag is learnt. None: that of model.prior, where there is one.",
    )

    cites: ClassVar[tuple[str, ...]] = ("heusel2017gans",)


class Quality(Section):
    """Generated images against as many real ones (the test set's; without one, those of data.holdout, or else
    all there are), in `evaluation.features`: FID, KID, precision and recall. Few images bias an FID upwards:
    compare runs of equally many."""

    images: Annotated[int, Field(ge=16)] = Field(
        default=500, description="How many generated and real images are compared."
    )
    judge: FilePath = Field(
        default="shipped:garments",
        description="The classifier that says what an image shows, and whose features are compared where "
        "evaluation.features names none: a safetensors file, relative to the scenario's file, or "
        "shipped:NAME.",
    )

    cites: ClassVar[tuple[str, ...]] = (
        "heusel2017gans",
        "binkowski2018demystifying",
        "kynkaanniemi2019improved",
    )


class Denoising(Section):
    """The denoising loss, under the same noise and timesteps in every round: what a model has learnt of
    images, whatever a judge sees in its samples. Each image gets noise `draws` times, once in each of as many
    equal parts of the timesteps that training draws. Held-out images say whether it learnt more than its own;
    those of `data.holdout` are measured in the same way, with or without this section."""

    path: FilePath | None = Field(
        default=None,
        description="A folder of images and captions, relative to the scenario's file; or shipped:NAME. "
        "None: the data's test set, where there is one.",
    )
    folders: Annotated[list[FolderName], Field(min_length=1)] | None = Field(
        default=None, description="Read only these of its folders. None: all that is in it."
    )
    caption_key: str = Field(
        default="text", description="The key of the caption in the folder's metadata.jsonl."
    )
    draws: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=8, description="How many times each image gets noise, each at a timestep of its own."
    )
    levels: Annotated[int, Field(ge=1, le=100)] = Field(
        default=4,
        description="In how many levels of noise, each as likely in training, the loss is also given: "
        "..._noise_1 is that with the least noise. At most `draws`.",
    )

    def measures(self, scenario: Any) -> bool:
        """Whether there are images beside those that are held out of clients' own."""
        return self.path is not None or (scenario.data.has_test_set and not scenario.sites)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        key = "evaluation.denoising"
        if not self.measures(scenario) and scenario.data.holdout is None:
            got = f"none, and {scenario.data.kind} without a test set"
            yield Refused(f"{key}.path", got, "a folder, or data.holdout")
        if self.path is None and self.folders is not None:
            yield Refused(f"{key}.folders", ", ".join(self.folders), "none without a path")


class InferenceCost(Section):
    """What an image costs once the model is trained: floating-point operations with this section's inference
    steps and guidance, and parameters that stand beside the base's."""


class GradientBound(Section):
    """How far a client's gradient can lie from the population's at the global model, because of its labels:
    sum_y |p_n(y) - p(y)| g_y, where g_y is the norm of label y's mean gradient over the test set. The mean
    over clients, and the largest."""

    cites: ClassVar[tuple[str, ...]] = ("zhao2018federated",)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if scenario.model.kind != "classifier" or not scenario.data.has_test_set:
            got = f"one for {scenario.model.kind} on {scenario.data.kind}"
            yield Refused("evaluation.gradient_bound", got, "model.kind classifier and data with a test set")
        if scenario.sites:
            expected = "none: a label at one site is unknown elsewhere"
            yield Refused("evaluation.gradient_bound", "one beside data.sites", expected)


class EvaluationSection(KindSection):
    """A measurement of one's own."""

    kind: str = Field(description="`module:Class` of it, or an installed one's name.")


OwnEvaluation = Annotated[EvaluationSection, OpenKind("evaluation")]


class Evaluation(Section):
    """What is measured and shown before training, every `every` rounds and at the end: sample grids from
    fixed noise (of a language model, texts from fixed draws), and numbers."""

    every: Count | None = Field(
        default=None, description="Evaluate every so many rounds. None: only before training and at the end."
    )
    early_stopping: EarlyStopping | None = Field(
        default=None,
        description="End the run where an evaluated metric has stopped becoming better. None: after its "
        "last round.",
    )
    best: BestByName | None = Field(
        default=None,
        description="Keep and export the model of the evaluated round with the best value of a metric; the "
        "metric's name alone, such as eval_loss, stands for it. None: export that of the last round.",
    )
    prompts: list[str] = Field(default=[], description="Prompts of which samples are generated.")
    images_per_prompt: Annotated[int, Field(ge=1, le=16)] = Field(
        default=4, description="Samples per prompt."
    )
    inference_steps: Count = Field(default=20, description="Denoising steps per image.")
    guidance_scale: NotNegative = Field(default=3.0, description="The weight of classifier-free guidance.")
    negative_prompt: str = Field(
        default="",
        description="What images of a text_to_image model should not show. None for Flux.1, whose guidance "
        "is distilled into it.",
    )
    new_tokens: Count = Field(
        default=200, description="How many tokens a language model writes after a prompt."
    )
    temperature: Positive = Field(
        default=0.8, description="The temperature at which a language model draws them."
    )
    reference: Reference | None = Field(
        default=None,
        description="Measure how near generated images come to held-out ones of the clients' style. None: "
        "not measured.",
    )
    quality: Quality | None = Field(
        default=None, description="Measure FID, KID, precision and recall. None: not measured."
    )
    features: OneOrMore | None = Field(
        default=None,
        description="In whose features evaluation.quality compares images: one of these, or a list. None: "
        "those of quality.judge.",
    )
    denoising: Denoising | None = Field(
        default=None,
        description="Measure the denoising loss of a text_to_image or diffusion model on a folder's images "
        "or the test set. None: of data.holdout alone, where there is one.",
    )
    inference_cost: InferenceCost | None = Field(
        default=None,
        description="Count what an image costs (text_to_image): {} to count. None: not counted.",
    )
    transmission: Transmission | None = Field(
        default=None,
        description="Measure held-out images that a codec sends, beside other ways to send them. None: not "
        "measured.",
    )
    gradient_bound: GradientBound | None = Field(
        default=None,
        description="Measure how far clients' gradients can lie from the population's: {} to measure. None: "
        "not measured.",
    )
    exact_match: Count | None = Field(
        default=None,
        description="Measure of so many test samples how many answers of a language_model, each token the "
        "likeliest, are exactly the sample's, but for white space at their ends. None: not measured.",
    )
    lm_eval: LmEval | None = Field(
        default=None,
        description="Measure a language_model by tasks of the Language Model Evaluation Harness. None: not "
        "measured.",
    )
    update_cosines_every: Count | None = Field(
        default=None,
        description="Measure the mean cosine of all pairs of the clients' updates, as they arrive, in every "
        "so-many-th round: 0 are orthogonal ones, 1 are equal ones. None: not measured.",
    )
    leakage: Leakage | None = Field(
        default=None,
        description="Measure what an observer learns of the clients' samples: from a split's activations, "
        "or from the updates that it sees. None: not measured.",
    )
    clients: ClientTests | None = Field(
        default=None,
        description="Test each client's own model on its own distribution: {} to hold out a quarter of its "
        "samples. None: not tested.",
    )
    measures: list[OwnEvaluation] = Field(
        default=[], description="Measurements of your own, each a mapping with kind: `module:Class`."
    )

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.update_cosines_every is not None:
            yield "charles2021large"

    @property
    def watched(self) -> dict[str, Watched]:
        """By their keys, what decides by a metric: no round begins before the evaluations of those before
        it have ended."""
        decides = {"early_stopping": self.early_stopping, "best": self.best}
        return {key: section for key, section in decides.items() if section is not None}

    def compares_updates(self, round_number: int) -> bool:
        """Whether the clients' updates of a round are compared with each other."""
        every = self.update_cosines_every
        return every is not None and round_number % every == 0

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from conflicts_of_features(self)
        if scenario.data.holdout is not None:
            yield from _without_holdout(scenario)
        if self.update_cosines_every is not None:
            yield from self._cosines(scenario)

    def _cosines(self, scenario: Any) -> Iterator[Refused]:
        topology = scenario.topology
        if topology.hands_model_on or topology.splits_model or topology.reduces_among_clients:
            got = f"{self.update_cosines_every} in a {topology.kind}"
            if topology.reduces_among_clients:
                got = f"{self.update_cosines_every} with topology.reduce allreduce"
            expected = "topology.kind parallel with reduce: server, where each update arrives by itself"
            yield Refused(".update_cosines_every", got, expected)
        if scenario.secure_aggregation is not None:
            got = f"{self.update_cosines_every} with secure aggregation"
            yield Refused(".update_cosines_every", got, "none: the server sees no update by itself")
        if scenario.privacy is not None:
            got = f"{self.update_cosines_every} with privacy"
            yield Refused(".update_cosines_every", got, "none: no noise covers what the cosines tell")


def _without_holdout(scenario: Any) -> Iterator[Refused]:
    """What has no samples to hold out."""
    data = scenario.data
    got = f"{data.holdout:g}"
    if data.has_environments:
        expected = "none: evaluation tries an agent in every client's environment"
        yield Refused("data.holdout", f"{got} of {data.kind}", expected)
    elif data.partition.draws_with_replacement:
        got = f"{got} beside a partition in which clients draw samples that others may have, too"
        yield Refused("data.holdout", got, "none, or a partition that deals each sample once")
