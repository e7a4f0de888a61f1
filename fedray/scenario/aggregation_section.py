"""What every `aggregation` section has."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Refused
from fedray.scenario.kinds import KindSection
from fedray.scenario.transforms import Transform

FROZEN_A = (".lora_A.",)  # FFA-LoRA: an adapter's A


class AggregationSection(KindSection):
    """What every rule's section has, and what others need to know of it."""

    kind: str = Field(description="The rule.")
    weighting: Literal["samples", "uniform", "quality"] = Field(
        default="samples",
        description="How much a client counts. samples: in proportion to how many samples it has. uniform: "
        "every client the same. quality: round(1000 n (1 - EMD / 2) q) for n samples, the earth mover's "
        "distance EMD (0 to 2) of its reported labels to the population's, and q = min(1, mean error / its "
        "error), of the losses in the last round in which it trained (before that q = 1). Its loss goes up "
        "with its update, 4 bytes.",
    )
    transforms: list[Transform] = Field(
        default=[],
        description="What is done to an update before it is sent, in this order: clip, then top_k or "
        "random_k, then quantize; at most one of each.",
    )

    frozen: ClassVar[tuple[str, ...]] = ()  # parts of names of parameters that stay as they were drawn
    needs_adapters: ClassVar[bool] = False  # whether it is made for LoRA
    multiplies: ClassVar[bool] = False  # whether products of A and B are added up
    changes_base: ClassVar[bool] = False  # whether what adapters have learnt goes into the base weights
    takes_mixed_ranks: ClassVar[bool] = False  # whether what a low rank leaves out may be zero
    keeps_client_state: ClassVar[bool] = False  # whether the rule keeps something of each client
    gathers: ClassVar[bool] = False  # whether it compares updates one by one, which a ring cannot add up
    goes_with_split: ClassVar[bool] = True  # whether it needs no client with the whole model

    @property
    def feeds_back(self) -> bool:
        """Whether what is lost on an update's way joins the client's next one."""
        return any(getattr(t, "error_feedback", False) for t in self.transforms)

    @property
    def keeps_state(self) -> bool:
        """Whether a client has a state of its own between its local updates."""
        return self.keeps_client_state or self.feeds_back or any(t.keeps_state for t in self.transforms)

    @property
    def global_models(self) -> int:
        """How many global models there are side by side, of which a client trains one."""
        return 1

    @property
    def clean_samples(self) -> int:
        """How many samples of the test set the server trains on itself, each round, for the rule."""
        return 0

    @property
    def least_updates(self) -> int:
        """With fewer updates than these in a round, the global model stays as it is."""
        return 1

    def operations(self, updates: int) -> float:
        """Floating-point operations a number of so many updates: a subtraction, a multiplication and an
        addition each."""
        return 3.0 * updates

    def weight(self, samples: int) -> int:
        """What a client of so many samples weighs in the mean."""
        return 1 if self.weighting == "uniform" else samples

    @property
    def weighs_by_quality(self) -> bool:
        """Whether a round's weights follow from clients' labels and losses."""
        return self.weighting == "quality"

    @property
    def report_bytes(self) -> int:
        """Of what a client reports beside its update: its loss in fp32, where it is weighed by that."""
        return 4 if self.weighs_by_quality else 0

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.feeds_back:
            yield "stich2018sparsified"
        if self.weighs_by_quality:
            yield from ("qiang2024aigc", "zhao2018federated")

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        kinds = ", ".join(t.kind for t in self.transforms)
        if any(
            a.rank > b.rank or (a.rank == b.rank and a.once and b.once) for a, b in pairwise(self.transforms)
        ):
            expected = "at most one each of clip, top_k or random_k, quantize, in this order"
            yield Refused(".transforms", kinds, expected)
        if self.needs_adapters and not scenario.tuning.has_adapters:
            got = f"{self.kind} with tuning {scenario.tuning.kind}"
            yield Refused(".kind", got, "tuning.kind lora, or another rule")
        topology = scenario.topology
        if self.weighs_by_quality:
            yield from self._quality_conflicts(scenario)
        if topology.hands_model_on and any(t.writes_bytes for t in self.transforms):
            expected = "none in a relay: what is handed on is the model, not an update"
            yield Refused(".transforms", kinds, expected)
        if topology.splits_model and not self.goes_with_split:
            expected = "fedavg, fedavgm, fedadam or fedyogi: no client has the whole model"
            yield Refused(".kind", f"{self.kind} in a split", expected)
        if topology.splits_model and any(t.writes_bytes for t in self.transforms):
            expected = "none in a split: topology.compression is for what crosses the cut"
            yield Refused(".transforms", kinds, expected)
        if topology.splits_model and (kept := [t.kind for t in self.transforms if t.keeps_state]):
            expected = "none that keeps a state in a split, whose clients keep nothing between rounds"
            yield Refused(".transforms", ", ".join(kept), expected)
        if topology.reduces_among_clients:
            if any(t.writes_bytes for t in self.transforms):
                expected = "clip alone with topology.reduce allreduce: a ring adds plain numbers"
                yield Refused(".transforms", kinds, expected)
            if self.gathers:
                got = f"{self.kind} with topology.reduce allreduce"
                yield Refused(".kind", got, "topology.reduce server: a ring can only add")

    def _quality_conflicts(self, scenario: Any) -> Iterator[Refused]:
        """What weights that differ from round to round cannot go with."""
        topology = scenario.topology
        expected = "samples or uniform"
        if topology.hands_model_on or topology.splits_model:
            got = f"quality in a {topology.kind}, where clients do not each send an update to the server"
            yield Refused(".weighting", got, f"{expected}, or topology.kind parallel")
        if scenario.sites:
            got = "quality beside data.sites, where a label at one site is unknown elsewhere"
            yield Refused(".weighting", got, expected)
        for key in ("secure_aggregation", "ledger", "privacy"):
            if getattr(scenario, key) is not None:
                got = f"quality with {key}, whose weights do not depend on clients' losses"
                yield Refused(".weighting", got, expected)
