"""`runtime`: where the work runs. Nothing here but `threads`, `gang` and `base_precision` can change a
result."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from fedray.scenario.base import Count, Refused, Section
from fedray.scenario.kinds import KindSection, OpenKind
from fedray.scenario.quantized_formats import QUANTIZED

# accelerate's trackers, and what installs each
TRACKERS = {
    "aim": "aim",
    "clearml": "clearml",
    "comet_ml": "comet-ml",
    "dvclive": "dvclive",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "tensorboard": "'fedray[tensorboard]'",
    "trackio": "trackio",
    "wandb": "wandb",
}


class CallbackSection(KindSection):
    """A callback of one's own."""

    kind: str = Field(description="module:Class of the callback.")


Reporter = Annotated[
    Literal["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"]
    | CallbackSection,
    OpenKind("callback", TRACKERS),
]


class Failures(Section):
    """What a failure costs. A round that loses an actor or a node (an infrastructure failure) is done again.
    A data failure is a loss that is not finite, or an image that cannot be read."""

    retries: Annotated[int, Field(ge=0)] = Field(
        default=3, description="How often a round that lost an actor or a node is done again."
    )
    data: Literal["abort", "drop"] = Field(
        default="drop",
        description="What a data failure does. drop: leave the client out of this round. abort: end the run.",
    )
    budget: Annotated[int, Field(ge=0)] = Field(
        default=10,
        description="How many data failures a run may have before it ends, where they are dropped.",
    )


class Runtime(Section):
    """Processes, threads and devices."""

    executor: Literal["ray", "serial"] = Field(
        default="ray",
        description="ray: client and server actors on Ray, on this machine or a cluster. serial: one "
        "process, without Ray, to debug in.",
    )
    actors: Count | Literal["auto"] = Field(
        default="auto",
        description="How many client actors there are; several clients share one where there are fewer "
        "actors than clients. auto: an actor per client of a round, as far as CPUs and GPUs allow.",
    )
    gpus_per_actor: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="The share of a GPU that each actor has; 0 trains on CPUs. auto: as much as the "
        "cluster's GPUs allow, up to 1. More than 1: the frozen base of text_to_image or language_model is "
        "spread over them, a share of its blocks on each, with LoRA adapters on the first; other models use "
        "one, unless one's own uses several.",
    )
    threads: Count = Field(
        default=1, description="CPU threads of each actor. Another number gives other bits in the result."
    )
    gang: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1,
        description="Clients whose adapters train in one forward pass, in batched products: faster where "
        "batches are small, with as many times the memory for activations. Clients of a round whose batches "
        "have equal sizes form gangs in the round's order. Results equal those of 1 within rounding, so that "
        "another number gives other bits; actors change none. 1: one client after another.",
    )
    base_precision: Literal["fp32", "bf16", "int8", "nf4"] | None = Field(
        default=None,
        description="The number format of a base model's frozen weights in memory, beside LoRA adapters. "
        "fp32: 32 bits. bf16: 16 bits, as training.precision bf16 has them. int8: linear layers in 8 bits, "
        "by torchao, others in fp32. nf4: linear layers in 4 bits with scales (QLoRA), by bitsandbytes, "
        "others as training.precision has them. None: that of training.precision.",
    )
    checkpoint_every: Count = Field(default=1, description="Write a checkpoint every so many rounds.")
    report_to: list[Reporter] = Field(
        default=[],
        description="Where metrics go beside metrics.jsonl and Ray's dashboard: the experiment trackers aim, "
        "clearml, comet_ml, dvclive, mlflow, swanlab, tensorboard (event files in the run folder), trackio "
        "and wandb, and module:Class of callbacks.",
    )
    failures: Failures = Field(default=Failures(), description="What happens when something fails.")

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.gang > 1:
            yield from self._conflicts_of_gangs(scenario)
        if self.base_precision is not None:
            yield from self._conflicts_of_precision(self.base_precision, scenario)
        gpus = self.gpus_per_actor
        if gpus != "auto" and gpus > 1 and not gpus.is_integer():
            yield Refused(
                ".gpus_per_actor", f"{gpus:g}", "at most 1, or a whole number: Ray gives whole GPUs"
            )
        if self.gpus_for_base(scenario.model) > 1:
            yield from self._conflicts_of_spread(scenario)

    def gpus_for_base(self, model: Any) -> int:
        """How many GPUs of an actor have a share of the base of a `model` section; 1 for one without."""
        gpus = 1 if self.gpus_per_actor == "auto" else int(self.gpus_per_actor)
        return max(1, gpus) if model.has_frozen_base else 1

    def _conflicts_of_spread(self, scenario: Any) -> Iterator[Refused]:
        refused = partial(Refused, ".gpus_per_actor")
        got = f"{self.gpus_per_actor:g} with "
        if not scenario.tuning.has_adapters:
            expected = "at most 1, or tuning.kind lora, beside which the base is frozen and may be spread"
            yield refused(f"{got}tuning.kind {scenario.tuning.kind}", expected)
        if scenario.topology.splits_model:
            expected = "at most 1, or a topology that trains whole models"
            yield refused(f"{got}topology.kind {scenario.topology.kind}", expected)
        if getattr(scenario.model, "control", None) is not None:
            yield refused(f"{got}model.control", "at most 1, or no ControlNet")
        if self.gang > 1:
            yield refused(f"{got}gang {self.gang}", "at most 1, or runtime.gang 1")
        if self.base_precision in QUANTIZED:
            expected = "at most 1, or a base in floating point"
            yield refused(f"{got}base_precision {self.base_precision}", expected)

    def _conflicts_of_gangs(self, scenario: Any) -> Iterator[Refused]:
        got = f"{self.gang} with "
        if not scenario.tuning.trains_in_gangs:
            yield Refused(".gang", f"{got}tuning {scenario.tuning.kind}", "1, or tuning.kind lora")
        if scenario.tuning.has_mixed_ranks:
            yield Refused(".gang", f"{got}tuning.ranks", "1, or one rank for all clients")
        model = scenario.model
        if not model.trains_in_gangs:
            yield Refused(".gang", f"{got}model {model.kind}", "1, or model.kind text_to_image")
        if model.normalizes_batches:
            yield Refused(".gang", f"{got}batch normalisation", "1, or another norm: it mixes clients")
        if not scenario.topology.plans_by_client:
            expected = "1, or topology.kind parallel, where clients begin with one model at the same time"
            yield Refused(".gang", f"{got}topology {scenario.topology.kind}", expected)
        if scenario.augmentation is not None:
            yield Refused(".gang", f"{got}augmentation", "1, or no augmentation")
        if self.base_precision in QUANTIZED:
            got += f"base_precision {self.base_precision}"
            yield Refused(".gang", got, "1, or a base in floating point")

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.executor == "ray":
            yield "moritz2018ray"
        if self.base_precision in QUANTIZED:
            yield from QUANTIZED[self.base_precision].cites

    def _conflicts_of_precision(self, got: str, scenario: Any) -> Iterator[Refused]:
        tuning = scenario.tuning
        precision = scenario.training.precision
        if not scenario.model.has_frozen_base:
            expected = "none: only text_to_image and language_model have a frozen base"
            yield Refused(".base_precision", f"{got} for a {scenario.model.kind}", expected)
        elif not tuning.has_adapters:
            expected = "none, or tuning.kind lora, beside which the base is frozen"
            yield Refused(".base_precision", f"{got} with tuning.kind {tuning.kind}", expected)
        if got == "bf16" and precision != "bf16":
            expected = "training.precision bf16, which is what computes with weights in bf16"
            yield Refused(".base_precision", f"bf16 with training.precision {precision}", expected)
        if got in QUANTIZED:
            yield from self._conflicts_of_quantized(got, scenario)

    def _conflicts_of_quantized(self, got: str, scenario: Any) -> Iterator[Refused]:
        refused = partial(Refused, ".base_precision")
        if scenario.training.precision == "fp16":
            expected = f"training.precision bf16 or fp32: {got} layers compute in those"
            yield refused(f"{got} with training.precision fp16", expected)
        if scenario.topology.splits_model:
            expected = "none, or a topology that trains whole models"
            yield refused(f"{got} with topology.kind {scenario.topology.kind}", expected)
        if scenario.aggregation.needs_adapters:
            expected = "none, or a rule that leaves base weights alone, such as fedavg"
            yield refused(f"{got} with aggregation.kind {scenario.aggregation.kind}", expected)
        if getattr(scenario.model, "control", None) is not None:
            expected = "none, or no ControlNet: it begins with the base's own weights"
            yield refused(f"{got} with model.control", expected)
