"""`adversary`: which clients attack, from when, and how."""

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from fedray.scenario.attacks import Attack
from fedray.scenario.base import Count, Positive, Refused, Section


class OneOrMore:
    """An annotation of a list, which then takes one entry alone, too."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def listed(value: Any) -> Any:
            return value if isinstance(value, list | tuple) else [value]

        return core_schema.no_info_before_validator_function(listed, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        several = handler(core)
        return {"anyOf": [several["items"], several]}


class Adversary(Section):
    """Clients that attack. They are in the rounds that they are chosen for, as all clients are."""

    clients: list[Annotated[int, Field(ge=0)]] | None = Field(
        default=None, description="The attackers by number, from 0. None: `share` says how many there are."
    )
    share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="The share of all clients that attack, drawn from the seed; at least one of them. None: "
        "`clients` names them.",
    )
    place: Literal["random", "first", "last"] = Field(
        default="random",
        description="Where attackers stand in a relay. random: wherever the order puts them. first, last: "
        "before, or behind, all others of their chain.",
    )
    from_round: Count = Field(
        default=1,
        description="The first round in which they attack. Behind the last one: nobody attacks, and an "
        "attack's success is measured on a clean model.",
    )
    claimed_samples: Positive = Field(
        default=1.0,
        description="How many samples an attacker claims to have, as a multiple of what it has, rounded: "
        "where aggregation.weighting is samples, it counts by that.",
    )
    attack: Annotated[list[Attack], Field(min_length=1), OneOrMore()] = Field(
        description="What they do: one attack, or several in this order, such as one on samples and one on "
        "updates."
    )

    @property
    def colludes(self) -> bool:
        """Whether what attackers send is made from the updates of the others."""
        return any(attack.colludes for attack in self.attack)

    @property
    def trains(self) -> bool:
        """Whether attackers train at all."""
        return all(attack.trains for attack in self.attack)

    @property
    def bid_factor(self) -> float:
        """What attackers bid, as a multiple of their true cost."""
        return prod(attack.bid_factor for attack in self.attack)

    def attackers(self, seed: int, clients: int) -> frozenset[int]:
        """The attackers of so many clients."""
        if self.share is None:
            return frozenset(self.clients or ())
        return _drawn(seed, clients, max(1, round(self.share * clients)))

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        clients = scenario.population.clients
        topology = scenario.topology
        if (self.clients is None) == (self.share is None):
            got = "both clients and share" if self.clients is not None else "neither clients nor share"
            yield Refused(".clients", got, "one of them")
        if wrong := [c for c in self.clients or () if c >= clients]:
            yield Refused(".clients", f"client {wrong[0]}", f"numbers from 0 to {clients - 1}, the clients'")
        if len(set(self.clients or ())) < len(self.clients or ()):
            yield Refused(".clients", f"{self.clients}", "each attacker once")
        if self.place != "random" and not topology.hands_model_on:
            yield Refused(".place", f"{self.place} in {topology.kind}", "random: only a relay has an order")
        elif self.place != "random" and topology.order != "random":
            expected = "topology.order random, or place: random"
            yield Refused(".place", f"{self.place} with topology.order {topology.order}", expected)
        if self.claimed_samples != 1 and scenario.aggregation.weighting != "samples":
            got = f"{self.claimed_samples:g} with aggregation.weighting {scenario.aggregation.weighting}"
            yield Refused(".claimed_samples", got, "1, or weighting samples")
        if self.from_round > 1 and not self.trains:
            got = f"{self.from_round} with an attack that trains nothing"
            yield Refused(".from_round", got, "1, or another attack")
        if sum(attack.colludes for attack in self.attack) > 1:
            yield Refused(".attack", "two attacks that make what all attackers send", "one of alie and ipm")
        if scenario.augmentation is not None:
            yield Refused("adversary", "one beside augmentation", "one of them")


@lru_cache(maxsize=8)
def _drawn(seed: int, clients: int, attackers: int) -> frozenset[int]:
    from fedray.randomness import SERVER, generator

    drawn = generator(seed, 0, SERVER, "attackers").choice(clients, attackers, replace=False)
    return frozenset(drawn.tolist())
