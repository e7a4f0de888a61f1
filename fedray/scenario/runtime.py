"""`runtime`: where the work runs. Nothing here but `threads` and `gang` can change a result."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from fedray.scenario.base import Count, Refused, Section
from fedray.scenario.kinds import KindSection, OpenKind

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
        "cluster's GPUs allow.",
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
    checkpoint_every: Count = Field(default=1, description="Write a checkpoint every so many rounds.")
    report_to: list[Reporter] = Field(
        default=[],
        description="Where metrics go beside metrics.jsonl and Ray's dashboard: the experiment trackers aim, "
        "clearml, comet_ml, dvclive, mlflow, swanlab, tensorboard (event files in the run folder), trackio "
        "and wandb, and module:Class of callbacks.",
    )
    failures: Failures = Field(default=Failures(), description="What happens when something fails.")

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.gang == 1:
            return
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

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.executor == "ray":
            yield "moritz2018ray"
