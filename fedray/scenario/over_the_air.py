"""`network.uplink`: over-the-air aggregation, in which all clients of a round send at once and their signals
add up, so that the server receives one sum."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Positive, Refused
from fedray.scenario.links import LinkSection
from fedray.scenario.radio import LogDistance, Tr38901

# of a channel, what makes bits of a signal or shares a band: symbols that add up have neither
DIGITAL = ("rate", "modulation", "block_error", "harq", "outage_db", "attempts", "allocation")


class OverTheAir(LinkSection):
    """All clients of a round send their updates at once, uncoded, with aligned phases, and the channel adds
    them (Zhu, Wang and Huang 2020; Yang et al. 2020).

    Each inverts its channel, so that all arrive with the same gain; one whose fading power is below
    `threshold` is silent for the round (truncated channel inversion), and is not asked again. Two numbers go
    on a complex symbol: a transmission takes numbers / 2 / bandwidth_hz seconds, however many send. A
    client's mean power over the fades is at most its transmit power P: the common receive power is the least
    P / (loss E[1/g; g >= threshold]) of the round's clients. The server's sum has the receiver's noise and
    interference. Each client tells the server one number beforehand, the root mean square of its weighted
    update, and the largest of all comes back: all scale by it.
    """

    kind: Literal["over_the_air"] = Field(description="over_the_air: all send at once, the channel adds.")
    channel: Annotated[LogDistance | Tr38901, Field(discriminator="kind")] = Field(
        description="The channel from each client: its band, power, losses, noise and fading. Of a digital "
        "link's keys rate, modulation, block_error, harq, outage_db, attempts and allocation mean nothing "
        "here."
    )
    threshold: Positive = Field(
        default=0.1,
        description="The fading power, of mean 1, below which a client is silent for the round: over a "
        "Rayleigh channel 1 - exp(-threshold) of the clients. Less lets more send, with less receive power: "
        "inverting deep fades takes power.",
    )

    implementation: ClassVar[str] = "fedray.network.over_the_air:OverTheAirLink"
    cites: ClassVar[tuple[str, ...]] = ("zhu2020broadband", "yang2020federated")
    needs_places: ClassVar[bool] = True
    carries_symbols: ClassVar[bool] = True
    superposes: ClassVar[bool] = True

    @property
    def may_lose(self) -> bool:
        return self.channel.fading != "none"

    def conflicts_of(self, direction: str, scenario: Any) -> Iterator[Refused]:
        if direction != "uplink":
            expected = "another link: signals add up where many send to one, on an uplink"
            yield Refused(".kind", f"over_the_air on a {direction}", expected)
        for refused in self.channel.conflicts_of(direction, scenario):
            yield refused.within(".channel")
        fields = type(self.channel).model_fields
        for name in DIGITAL:
            got = getattr(self.channel, name)
            if got != fields[name].get_default(call_default_factory=True):
                expected = "none: symbols that add up carry no bits, are never sent again and share no band"
                yield Refused(f".channel.{name}", getattr(got, "kind", got), expected)
        if self.channel.fading == "none" and self.threshold > 1:
            expected = "at most 1, the fading power of a channel that does not fade: else nobody sends"
            yield Refused(".threshold", f"{self.threshold:g}", expected)


def superposed_conflicts(scenario: Any) -> Iterator[Refused]:
    """What cannot go with an uplink on which signals add up: all that needs single updates, bytes, or clients
    that do not send at once."""
    topology = scenario.topology
    beside = f"beside an uplink {scenario.network.uplink.kind}"
    if not topology.shares_uplink or topology.asynchronous is not None:
        got = f"{topology.kind} {beside}"
        if topology.reduces_among_clients:
            got = f"parallel with reduce allreduce {beside}"
        if topology.asynchronous is not None:
            got = f"parallel with mode {topology.asynchronous.kind} {beside}"
        expected = "parallel with reduce server and no mode: signals add up where all clients send at once"
        yield Refused("topology.kind", got, expected)
    yield from _rule_conflicts(scenario, beside)
    if scenario.network.deadline_s is not None:
        got = f"{scenario.network.deadline_s:g} {beside}"
        yield Refused("network.deadline_s", got, "none: all send at once, when the last has trained")
    if scenario.population.over_select:
        got = f"{scenario.population.over_select} {beside}"
        yield Refused("population.over_select", got, "0: all send at once, and nobody is later than others")
    if scenario.has_collusion:
        got = f"one that is made from all updates of a round, {beside}"
        yield Refused("adversary.attack", got, "one of each attacker by itself: nobody reads the others'")
    if scenario.evaluation.leakage is not None:
        yield Refused("evaluation.leakage", f"one {beside}", "none: nobody receives a single update")
    reasons = {
        "secure_aggregation": "masks are integers that cancel exactly, which noise does not let them",
        "ledger": "clients sign hashes of updates, and the server, which gets the sum, has none to check",
        "incentive": "bids reckon with bytes and single updates, and here are neither",
        "augmentation": "pictures and their scores travel as bytes, which this uplink does not carry",
    }
    for key, reason in reasons.items():
        if getattr(scenario, key) is not None:
            yield Refused(key, f"one {beside}", f"none: {reason}")


def _rule_conflicts(scenario: Any, beside: str) -> Iterator[Refused]:
    """Rules and transforms that need more than a sum of updates."""
    aggregation = scenario.aggregation
    reasons = {
        "compares single updates": aggregation.gathers,
        "multiplies each update's factors": aggregation.multiplies,
        "keeps and sends something of each client beside its update": aggregation.keeps_client_state,
        "has several global models": aggregation.global_models > 1,
        "trains at the server to judge updates": aggregation.clean_samples > 0,
    }
    if reason := next((reason for reason, holds in reasons.items() if holds), None):
        got = f"{aggregation.kind}, which {reason}, {beside}"
        yield Refused("aggregation.kind", got, "a rule of the mean alone, such as fedavg or fedadam")
    if aggregation.weighs_by_quality:
        yield Refused("aggregation.weighting", f"quality {beside}", "samples or uniform, known beforehand")
    if written := [t.kind for t in aggregation.transforms if t.writes_bytes]:
        expected = "clip alone: what adds up on the air is plain numbers, all at the same places"
        yield Refused("aggregation.transforms", f"{', '.join(written)} {beside}", expected)
    if scenario.tuning.has_mixed_ranks:
        expected = "one rank: all send the same numbers at the same time"
        yield Refused("tuning.ranks", f"mixed ranks {beside}", expected)
