"""`augmentation`: images that a generator makes of labels which clients lack (GenFL, Qiang et al. 2024,
Sec. III)."""

from collections.abc import Iterator
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.amount import AnyAmount, PerClass
from fedray.scenario.base import Count, FilePath, NotNegative, Refused, Section
from fedray.scenario.prompts import Drawn, Prompts
from fedray.scenario.tune_first import TuneFirst
from fedray.scenario.weighting import Fixed, Weighting


def fillable(template: str) -> bool:
    """Whether nothing but {label} and {a} stands in a prompt's braces, without attributes, conversions or
    widths."""
    try:
        fields = [
            (name, form, conversion)
            for _, name, form, conversion in Formatter().parse(template)
            if name is not None
        ]
    except ValueError:  # a brace alone
        return False
    return all(name in ("label", "a") and not form and not conversion for name, form, conversion in fields)


class Augmentation(Section):
    """GenFL (Qiang et al. 2024): a generator makes images of labels which clients lack. Where `at` is server,
    an augmented model trains on them at the server while the clients train on their own images, and the two
    are combined as kappa_1 times the clients' mean plus kappa_2 times the augmented model (Eq. 1). Elsewhere
    the images join the clients' own."""

    at: Literal["server", "server_broadcast", "client"] = Field(
        default="server",
        description="Where images are made and used. server: made at the server, where an augmented model "
        "trains on them. server_broadcast: made at the server and sent to the clients, who train on them. "
        "client: made by the clients themselves.",
    )
    generator: FilePath = Field(
        default="tiny-sd",
        description="A text_to_image model, written as model.base: a shipped model, a folder in diffusers' "
        "layout, or owner/name on the Hugging Face hub. The model/ folder of a fedray run is one too.",
    )
    tune_first: TuneFirst | None = Field(
        default=None,
        description="Fine-tune the generator before the first round. None: it is used as it is.",
    )
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        default="fp32", description="The generator's number format: fp32, fp16 or bf16."
    )
    inference_steps: Count = Field(default=20, description="Denoising steps per image.")
    guidance_scale: NotNegative = Field(default=7.0, description="The weight of classifier-free guidance.")
    templates: (
        Annotated[list[str], Field(min_length=1)] | dict[str, Annotated[list[str], Field(min_length=1)]]
    ) = Field(
        default=["a photo of {a} {label}"],
        description="Prompts to draw from: one list for all labels, or one list per label. {label} stands "
        "for the label's name, {a} for its article.",
    )
    names: dict[str, str] = Field(
        default={},
        description="What a prompt calls a label whose own name is ambiguous, such as {apple: red apple "
        "fruit}.",
    )
    prompts: Prompts = Field(
        default=Drawn(), description="Which of its label's templates a picture is made of."
    )
    labels: Literal["uniform", "lacking"] = Field(
        default="uniform",
        description="Which labels images are made of. uniform: of all labels equally many. lacking: always "
        "of the label of which there are fewest.",
    )
    per_class: Count = Field(default=10, description="Images per label and round.")
    at_most: Count = Field(default=300, description="The most images per label over the whole run.")
    amount: AnyAmount = Field(default=PerClass(), description="How many images are generated, and when.")
    batch_size: Count = Field(default=50, description="How many images are generated at once.")
    weighting: Weighting = Field(
        default=Fixed(), description="How the clients' mean and the augmented model are weighted (Eq. 1)."
    )
    start: Literal["global", "own"] = Field(
        default="global",
        description="Where the augmented model's training begins in each round. global: at the global "
        "model. own: where it ended in the round before.",
    )
    judge: FilePath | None = Field(
        default=None,
        description="A classifier trained on real images (a safetensors file, relative to the scenario's "
        "file, or shipped:NAME), which says how many generated images show their label. None: this is not "
        "measured.",
    )

    planner: ClassVar[str] = "fedray.augmentation.planner:AugmentationPlanner"
    implementation: ClassVar[str] = "fedray.augmentation.server:AugmentationServer"
    cites: ClassVar[tuple[str, ...]] = ("qiang2024aigc", "rombach2022high", "ho2022classifier")

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.generator in ("tiny-sd", "tiny-sd2"):
            yield from ("song2021denoising", "xiao2017fashion")

    @property
    def works_at_server(self) -> bool:
        """Whether the server computes beside its clients."""
        return self.at != "client"

    @property
    def fixed_rounds(self) -> Refused | None:
        """Why a run that has begun cannot go on beyond its last round, if so."""
        if not self.weighting.depends_on_last_round:
            return None
        got = f"{self.weighting.kind} with --rounds, up to which it rises"
        expected = "fixed, held_out or line_search, which do not depend on the last round"
        return Refused("augmentation.weighting", got, expected)

    @property
    def has_one_template_each(self) -> bool:
        """Whether there is nothing to choose among."""
        pools = self.templates.values() if isinstance(self.templates, dict) else [self.templates]
        return all(len(pool) == 1 for pool in pools)

    @property
    def all_templates(self) -> list[str]:
        """Every template."""
        if isinstance(self.templates, list):
            return self.templates
        return [template for some in self.templates.values() for template in some]

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        topology = scenario.topology
        if scenario.model.kind != "classifier" or topology.kind != "parallel":
            got = f"one for {scenario.model.kind} over a {topology.kind}"
            yield Refused("augmentation", got, "model.kind classifier and topology.kind parallel")
        if scenario.aggregation.keeps_client_state:
            expected = "a rule without control variates: the augmented model has none"
            yield Refused("augmentation", f"one beside {scenario.aggregation.kind}", expected)
        if scenario.population.selection in ("fedcs", "proportional_fair"):
            expected = "random, round_robin or label_cover beside augmentation"
            yield Refused("population.selection", scenario.population.selection, expected)
        usual = type(self).model_fields["weighting"].default
        if self.at != "server" and (self.weighting != usual or self.start == "own"):
            got = f"{self.at} with weights of an augmented model"
            yield Refused(".at", got, "server, where there is one")
        if topology.reduces_among_clients and self.at == "server":
            got = "allreduce with augmentation.at server"
            yield Refused("topology.reduce", got, "server, which mixes two models")
        if self.weighting.needs_test_set and not scenario.data.has_test_set:
            expected = "data with a test set, or fixed or linear"
            yield Refused(".weighting", f"{self.weighting.kind} for an image folder", expected)
        for text in self.all_templates:
            if not fillable(text):
                expected = "a prompt in which only {label} and {a} stand in braces"
                yield Refused(".templates", repr(text), expected)

    def templates_of(self, label: str) -> list[str]:
        return self.templates if isinstance(self.templates, list) else self.templates.get(label, [])
