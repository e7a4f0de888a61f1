"""`secure_aggregation`: the server learns the sum of the clients' updates, and no single one."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count, Refused, Section

WORD_BITS = 32  # of a masked number, where clipping bounds it
ONE_BY_ONE = "another: with secure aggregation a client sends several messages, one after another"


class SecureAggregation(Section):
    """Clients mask their updates so that the masks cancel in the sum (SecAgg, Bonawitz et al. 2017; with
    `neighbours` SecAgg+, Bell et al. 2020). The server is taken to be honest but curious. Keys follow from
    the scenario's seed: a simulation, which hides nothing from who knows the seed."""

    threshold: Count | None = Field(
        default=None,
        description="How many of those that hold shares of a client's secrets must answer, so that a round "
        "can be unmasked: more than half of them, at most all. With fewer the round fails and the model "
        "stays. The holders are the clients that a round selects, or with neighbours a client's neighbours "
        "and itself. None: the least number above two thirds of them.",
    )
    neighbours: Count | None = Field(
        default=None,
        description="SecAgg+: with how many others a client shares masks and keys, an even number. None: "
        "with all others of the round (SecAgg).",
    )
    bits: Literal[64, 32] = Field(
        default=64,
        description="Bits of a masked number. 64: the exact sum, the same bits as without secure "
        "aggregation. 32: half the bytes; updates are rounded to value_bits, and a clip in "
        "aggregation.transforms must bound them.",
    )
    value_bits: Annotated[int, Field(ge=2, le=24)] = Field(
        default=16,
        description="With bits 32: bits of each number of an update, its sign included; a number as large "
        "as the clip's norm fills them. value_bits + log2(sum of the round's weights) is at most 32.",
    )

    cites: ClassVar[tuple[str, ...]] = ("bonawitz2017practical",)

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.neighbours is not None:
            yield "bell2020secure"

    def holders(self, clients: int) -> int:
        """How many hold shares of a client's secrets in a round of so many clients: itself too."""
        return clients if self.neighbours is None else min(self.neighbours + 1, clients)

    def least(self, clients: int) -> int:
        """How many of them must answer."""
        return self.threshold or 2 * self.holders(clients) // 3 + 1

    @property
    def word_bytes(self) -> int:
        """Bytes of a masked number."""
        return self.bits // 8

    @property
    def most_weight(self) -> int:
        """The largest sum of a round's weights that masked numbers hold."""
        return int(2 ** (WORD_BITS - self.value_bits)) if self.bits == WORD_BITS else 2**42

    def refuse_weight(self, weight: int) -> None:
        """Raises Refused where the weights of a round's clients add up to more than masked numbers hold."""
        if weight > self.most_weight:
            needed = self.value_bits + math.log2(weight)
            got = f"32 with value_bits {self.value_bits} and weights of {weight} in all: {needed:.1f} bits"
            expected = (
                f"at most 32: weights of {self.most_weight} in all (aggregation.weighting uniform, or fewer"
                " value_bits), or bits 64"
            )
            raise Refused("secure_aggregation.bits", got, expected)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from self._counts(scenario.population.clients_selected)
        yield from self._topology(scenario)
        yield from self._updates(scenario)
        if self.bits == WORD_BITS:
            yield from self._narrow(scenario)

    def _counts(self, clients: int) -> Iterator[Refused]:
        """Of so many clients that a round selects."""
        if clients < 2:
            yield Refused(
                "secure_aggregation", "a round of one client", "at least two: a sum of one hides nothing"
            )
            return
        if self.neighbours is not None and (self.neighbours % 2 or not 2 <= self.neighbours < clients):
            expected = f"an even number from 2, below the {clients} clients of a round; or none: all of them"
            yield Refused(".neighbours", self.neighbours, expected)
        n = self.holders(clients)
        if self.threshold is not None and not n / 2 < self.threshold <= n:
            expected = f"more than half and at most all of the {n} holders of a share: {n // 2 + 1} to {n}"
            yield Refused(".threshold", self.threshold, expected)

    def _topology(self, scenario: Any) -> Iterator[Refused]:
        topology = scenario.topology
        expected = "topology.kind parallel with reduce server"
        if topology.hands_model_on:
            got = f"secure aggregation in a {topology.kind}, where clients see each other's updates"
            yield Refused("topology.kind", got, expected)
        elif topology.splits_model:
            got = "secure aggregation in a split, where the server sees each client's activations"
            yield Refused("topology.kind", got, expected)
        elif not topology.shares_uplink:
            got = "secure aggregation where not each client sends the server an update of its own"
            yield Refused("topology", got, expected)
        if scenario.augmentation is not None:
            yield Refused("augmentation", "secure aggregation beside it", "one of the two")
        network = scenario.network
        if network.save_energy:
            yield Refused("network.save_energy", "true with secure aggregation", f"false: {ONE_BY_ONE[9:]}")
        if scenario.population.selection == "fedcs":
            yield Refused("population.selection", "fedcs with secure aggregation", ONE_BY_ONE)
        for direction in ("uplink", "downlink"):
            allocation = getattr(network.links[direction], "allocation", None)
            if allocation is not None and allocation.compares_senders:
                got = f"{allocation.kind} with secure aggregation"
                yield Refused(f"network.{direction}.allocation", got, ONE_BY_ONE)

    def _updates(self, scenario: Any) -> Iterator[Refused]:
        aggregation = scenario.aggregation
        if aggregation.gathers or aggregation.multiplies:
            why = "compares single updates" if aggregation.gathers else "multiplies each update's factors"
            got = f"{aggregation.kind} with secure aggregation, which {why}"
            yield Refused("aggregation.kind", got, "a rule that adds updates up, such as fedavg")
        if written := [t.kind for t in aggregation.transforms if t.writes_bytes]:
            expected = (
                "clip alone with secure aggregation: clients must send the same places, and masked integers"
                " are as many bytes whatever they were written as (bits: 32 halves them)"
            )
            yield Refused("aggregation.transforms", ", ".join(written), expected)
        if scenario.has_collusion:
            expected = "an attack on samples or on an attacker's own update: nobody reads the others'"
            yield Refused("adversary.attack", "one that is made from all updates of a round", expected)
        if scenario.ledger is not None and scenario.ledger.keep == "updates":
            got = "updates with secure aggregation, which hides them"
            yield Refused("ledger.keep", got, "hashes")

    def _narrow(self, scenario: Any) -> Iterator[Refused]:
        """Of 32 bits."""
        if self.clip_norm(scenario) is None:
            expected = "a clip in aggregation.transforms, which bounds each number, or bits 64"
            yield Refused(".bits", "32 without a clip", expected)
        if scenario.tuning.has_mixed_ranks:
            expected = "bits 64: what a client of a low rank leaves out is not clipped"
            yield Refused(".bits", "32 with tuning.ranks", expected)
        if scenario.aggregation.weighting == "uniform":
            try:
                self.refuse_weight(scenario.population.clients_selected)
            except Refused as e:
                yield e

    @staticmethod
    def clip_norm(scenario: Any) -> float | None:
        """The largest Euclidean norm of an update; None where nothing bounds it."""
        norms = (t.norm for t in scenario.aggregation.transforms if t.kind == "clip")
        return next(norms, None)
