"""`topology`: who sends what to whom."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Count, Refused
from fedray.scenario.hybrid import Hybrid
from fedray.scenario.kinds import OpenKind
from fedray.scenario.mode import AnyMode, Mode
from fedray.scenario.node_models import Gossip, Hierarchical
from fedray.scenario.relay import Relay
from fedray.scenario.split_defence import Defence
from fedray.scenario.topology_section import TopologySection
from fedray.scenario.transforms import Quantize, TopK

Compression = Annotated[TopK | Quantize, Discriminator("kind")]


class Parallel(TopologySection):
    """Every client of a round trains from the same model at the same time (huang2023, Fig. 2a)."""

    kind: Literal["parallel"] = Field(description="parallel: all clients at the same time.")
    reduce: Literal["server", "allreduce"] = Field(
        default="server",
        description="Where updates are added. server: each client sends its update up. allreduce: the "
        "round's n clients add them in a ring over sidelinks, in which each sends 2 (n - 1) / n of the "
        "payload, and one of them sends the result up.",
    )
    mode: Mode | None = Field(
        default=None,
        description="Asynchronous rounds: when the server takes its step, where clients do not wait for each "
        "other. None: each round waits for all its clients.",
    )

    implementation: ClassVar[str] = "fedray.topologies.parallel:ParallelTopology"
    cites: ClassVar[tuple[str, ...]] = ("huang2023federated",)
    plans_by_client: ClassVar[bool] = True

    @property
    def reduces_among_clients(self) -> bool:
        return self.reduce == "allreduce"

    @property
    def asynchronous(self) -> AnyMode | None:
        return self.mode

    @property
    def shares_uplink(self) -> bool:
        return self.reduce == "server"

    def updates(self, clients: int) -> int:
        return clients if self.mode is None else self.mode.updates_per_step

    @property
    def views(self) -> tuple[str, ...]:
        """In a ring the server gets the sum alone."""
        return ("sum",) if self.reduces_among_clients else ("server", "sum")

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.reduces_among_clients:
            yield "patarasuk2009bandwidth"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.reduces_among_clients:
            for key in scenario.closing_keys:
                yield Refused(".reduce", f"allreduce with {key}", "server: a ring adds what all have")


class CentralServer(TopologySection):
    """The server trains alone, on all samples: they lie there already, as one client's, and nothing travels.
    The centralised baseline of a federation, and what trains on samples that have been collected."""

    kind: Literal["central"] = Field(description="central: the server alone, on all samples.")

    implementation: ClassVar[str] = "fedray.topologies.central:CentralTopology"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        clients = scenario.population.clients
        if clients != 1:
            yield Refused("population.clients", f"{clients} for a central topology", "1, who stands for all")
        for name in ("augmentation", "secure_aggregation", "incentive", "adversary", "ledger"):
            if getattr(scenario, name) is not None:
                yield Refused("topology.kind", f"central with {name}", "another: there are no clients")
        for key in scenario.closing_keys:
            yield Refused(key, "one for a central topology", "none: nobody is waited for")


class Split(TopologySection):
    """Clients hold the first stages of the model, the server the rest; each batch's activations go up and
    their gradients come down, and the clients' parts are averaged (huang2023, Fig. 2b). `fedray plan` lists
    a model's stages and the cuts between them. A codec is cut at its channel: what goes up is symbols, which
    take airtime and no bytes."""

    kind: Literal["split"] = Field(description="split: a model cut between clients and server.")
    cut: str = Field(
        description="The name of the last of the client's first stages. auto: the cut with which the first "
        "round costs least (see choose)."
    )
    tail: str | None = Field(
        default=None,
        description="U-shape (Vepakomma et al. 2018): the name of the stage from which on the model is the "
        "client's again, so that loss and labels stay there. auto: the one with which the first round costs "
        "least. None: the server has the model's end, and the loss.",
    )
    variant: Literal["splitfed_v1", "splitfed_v2", "vanilla"] = Field(
        default="splitfed_v2",
        description="splitfed_v1: a server part per client, averaged as the clients' parts are. "
        "splitfed_v2: one server part, which every batch updates as it comes (both Thapa et al. 2022). "
        "vanilla: clients train one after another, and hand their part on over the sidelink (Gupta and "
        "Raskar 2018).",
    )
    choose: Literal["time", "energy"] = Field(
        default="time",
        description="What auto makes least. time: the round's simulated seconds. energy: its joules.",
    )
    may_send: list[str] = Field(
        default=[], description="Inputs that may leave their client as they are, such as labels or text."
    )
    skips: Literal["send", "home"] = Field(
        default="send",
        description="Skip connections that cross a cut, such as a U-Net's. send: they travel. home: refuse "
        "such a cut, so that they stay on the client.",
    )
    gradients: Literal["send", "none"] = Field(
        default="send",
        description="What comes down to a client's first part. send: the gradients of what it sent up. none: "
        "nothing; a cut before which anything trains is refused (Yao 2024).",
    )
    micro_batches: Count = Field(
        default=1,
        description="Into how many parts a batch is cut, which go through client and server as through a "
        "pipeline; the optimizer takes one step for all.",
    )
    swap_every: Count | None = Field(
        default=None,
        description="Rounds after which clients exchange what stays with them (tuning.local): before every "
        "so many further rounds each client of the round sends it over the sidelink to another one, in a "
        "circle drawn at random, as discriminators are swapped in MD-GAN (Hardy et al. 2019). None: never.",
    )
    compression: Annotated[list[Compression], Field(max_length=2)] = Field(
        default=[],
        description="How activations and their gradients are compressed: top_k, quantize, or both in this "
        "order.",
    )
    defence: Defence | None = Field(
        default=None, description="What hides inputs from a server that sees activations. None: no defence."
    )

    implementation: ClassVar[str] = "fedray.topologies.split:SplitTopology"
    cites: ClassVar[tuple[str, ...]] = ("huang2023federated",)
    splits_model: ClassVar[bool] = True
    serves_in_clock_order: ClassVar[bool] = True

    @property
    def chooses_cut(self) -> bool:
        return "auto" in (self.cut, self.tail)

    @property
    def views(self) -> tuple[str, ...]:
        return ("activations",)

    def updates(self, clients: int) -> int:
        """Where the client's part goes from hand to hand, one comes back."""
        return min(1, clients) if self.variant == "vanilla" else clients

    def server_calls(self, clients: int) -> int:
        """Every micro-batch of every client may wait there."""
        return clients * self.micro_batches + 2

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        yield "gupta2018distributed" if self.variant == "vanilla" else "thapa2022splitfed"
        if self.tail is not None:
            yield "vepakomma2018split"
        if self.micro_batches > 1:
            yield "harlap2018pipedream"
        if self.gradients == "none":
            yield "yao2024enhancing"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from self._training(scenario)
        kinds = [c.kind for c in self.compression]
        if kinds not in ([], ["top_k"], ["quantize"], ["top_k", "quantize"]):
            yield Refused(".compression", ", ".join(kinds), "top_k, quantize, or both in this order")
        for i, compression in enumerate(self.compression):
            # top_k's is its default, and has nothing to do here
            if compression.error_feedback and compression.kind == "quantize":
                yield Refused(
                    f".compression.{i}.error_feedback", True, "false: the next batch is another one"
                )
        if self.defence is not None:
            yield from self.defence.conflicts_in_split(self, scenario)
        if self.tail is None and not self.may_send and not scenario.model.cuts_by_timestep:
            expected = (
                "a tail, which keeps labels and loss at home, or may_send with what the server's loss needs,"
                " such as [labels]"
            )
            yield Refused(".may_send", "nothing, without a tail", expected)
        if self.variant == "vanilla":
            yield from self._vanilla(scenario)
        if scenario.sites and "auto" in (self.cut, self.tail):
            expected = "a stage's name: what a site holds is not known beforehand"
            yield Refused(".cut", "auto beside data.sites", expected)

    def _training(self, scenario: Any) -> Iterator[Refused]:
        training = scenario.training
        if scenario.tuning.has_mixed_ranks:
            yield Refused("tuning.ranks", "some in a split", "one rank for all")
        keeps = bool(scenario.tuning.local) or scenario.model.trains_home
        if keeps and self.variant == "vanilla":
            expected = "none, or splitfed_v1 or splitfed_v2: in vanilla clients hand their part on"
            yield Refused("tuning.local", "some for vanilla", expected)
        if self.swap_every is not None and not keeps:
            expected = "none, or weights in tuning.local, which clients exchange"
            yield Refused(".swap_every", self.swap_every, expected)
        if training.precision == "fp16":
            expected = "fp32 or bf16: neither side sees whether the other's gradients overflow"
            yield Refused("training.precision", "fp16 in a split", expected)
        if training.gradient_checkpointing:
            expected = "false in a split: clients share a network, whose weights may be others' then"
            yield Refused("training.gradient_checkpointing", True, expected)
        if self.micro_batches > training.batch_size:
            expected = f"at most training.batch_size, {training.batch_size}"
            yield Refused(".micro_batches", self.micro_batches, expected)
        if scenario.model.normalizes_batches and self.micro_batches > 1:
            expected = "1, or model.norm group: a batch is normalised as a whole"
            yield Refused(".micro_batches", self.micro_batches, expected)

    def _vanilla(self, scenario: Any) -> Iterator[Refused]:
        if scenario.runtime.failures.data == "drop":
            expected = "abort: who fails has nothing to hand on"
            yield Refused("runtime.failures.data", "drop for vanilla", expected)
        for key in scenario.closing_keys:
            expected = "splitfed_v1 or splitfed_v2: a chain breaks with its first link"
            yield Refused(".variant", f"vanilla with {key}", expected)


AnyTopology = Relay | Parallel | Split | CentralServer | Gossip | Hierarchical | Hybrid
Topology = Annotated[AnyTopology, Discriminator("kind"), OpenKind("topology")]
