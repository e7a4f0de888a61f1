"""A round is a schedule: steps, and what each waits for.

A schedule says who sends what to whom. It trains nothing and moves nothing: the clock costs it, an executor
carries it out, the run folder keeps it. Values flow along `after`: a `Train` step takes the buffer its first
predecessor holds and leaves a new one, a `Send` step moves its first predecessor's and only waits for others,
a `Aggregate` step combines all that reach it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from fedray.mixing import Mixing
from fedray.randomness import SERVER_ID
from fedray.steps import SERVED, SERVER_NODE, Aggregate, Generate, Pass, Score, Send, Step, Train, Validate


class Payments(NamedTuple):
    """What the clients of a round are paid, in money: the sum of their payments and of their true costs, and
    what attackers gain by the bids that they made instead of their true costs (None: no attacker bids). Where
    updates are paid for by what they add to the model, that is known once they are there: until then it says
    what is paid at most (contributions are None)."""

    paid: float
    social_cost: float
    misreport_gain: float | None = None
    by_client: Mapping[int, float] | None = None  # what each winner is paid; the others nothing
    contributions: Mapping[int, float] | None = None  # of the updates that arrived, by client

    @property
    def sums(self) -> dict[str, float]:
        """What is summed over rounds, by name."""
        sums = {"paid": self.paid, "social_cost": self.social_cost}
        return sums if self.misreport_gain is None else sums | {"misreport_gain": self.misreport_gain}


class Tier(NamedTuple):
    """A group of clients of about the same speed, whose step a round is.

    Attributes:
        number: from 0, the fastest.
        steps: that each tier has taken, with this one.
    """

    number: int
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """One round, its steps in an order in which each stands behind those it waits for."""

    round: int
    steps: tuple[Step, ...]
    unreached: tuple[int, ...] = ()  # clients that were selected, and that no step reaches
    payments: Payments | None = None  # where clients are paid
    weights: Mapping[int, int] | None = None  # of its clients, where these are a round's own
    # By how many server steps each client's model is older than the newest; empty where all get the newest.
    staleness: Mapping[int, int] = field(default_factory=dict)
    # models that clients go on with after it, each by how many server steps had made it
    versions_in_use: frozenset[int] = frozenset()
    tier: Tier | None = None  # whose step it is, where tiers go on by themselves
    # the signal-to-noise ratio, linear, of the loudest update at the server, where signals add up on the air
    receive_snr: float | None = None
    models: Mixing | None = None  # where there are several models; None: all begin with the global one
    waited_s: float = 0.0  # seconds before it, in which no client was there
    stacks: bool = False  # whether the updates go down again in later rounds, as changes of base weights

    def __post_init__(self) -> None:
        early = next(
            (self.steps[n].id for n, before in enumerate(self.before) if before and max(before) >= n), None
        )
        if early is not None:
            raise ValueError(f"{early} waits for a step that does not stand before it")

    @cached_property
    def before(self) -> list[list[int]]:
        """The places of the steps that each step waits for."""
        place = {step.id: n for n, step in enumerate(self.steps)}
        if len(place) < len(self.steps):
            raise ValueError("got two steps of one id, expected an id for each")
        nowhere = len(place)
        nothing = list[int]()
        return [[place.get(i, nowhere) for i in step.after] if step.after else nothing for step in self.steps]

    @cached_property
    def sends(self) -> dict[str, list[int]]:
        """The places of the steps that send, by direction."""
        places: dict[str, list[int]] = {}
        for n, step in enumerate(self.steps):
            if isinstance(step, Send):
                places.setdefault(step.direction, []).append(n)
        return places

    @cached_property
    def validates(self) -> bool:
        """Whether clients validate what they are handed."""
        return any(isinstance(step, Validate) for step in self.steps)

    @cached_property
    def computing(self) -> dict[int, int]:
        """The places of the steps that compute, and for each the client that does, or the server's number."""
        return {n: _computes_at(step) for n, step in enumerate(self.steps) if not isinstance(step, Send)}

    @property
    def doers(self) -> list[tuple[int, ...]]:
        """Of each step, by their numbers, those who have to be there: both ends of a transfer."""
        return [
            (step.sender, step.receiver) if isinstance(step, Send) else (self.computing[n],)
            for n, step in enumerate(self.steps)
        ]

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    @cached_property
    def clients(self) -> list[int]:
        """The clients that train in this round, in the order of the steps."""
        return list(
            dict.fromkeys(
                s.client for s in self.steps if isinstance(s, Train | Pass) and s.client != SERVER_ID
            )
        )

    def sorted(self, starts_s: Mapping[str, float]) -> Schedule:
        """The same steps, in the order in which the clock has them start."""
        steps = sorted(self.steps, key=lambda step: starts_s[step.id])
        return replace(self, steps=tuple(steps))

    def encoding(self, encoded: Collection[int]) -> Schedule:
        """The same round, in which all clients but these encode their samples before they train."""
        steps = list(self.steps)
        first: dict[int, int] = {}  # the place of each client's first step of training
        for n, step in enumerate(steps):
            if isinstance(step, Train | Pass) and not _is_served(step):
                first.setdefault(step.client, n)
        for client in first.keys() - set(encoded):
            step = steps[first[client]]
            assert isinstance(step, Train | Pass)
            steps[first[client]] = step._replace(encodes=True)
        return replace(self, steps=tuple(steps))

    def agreeing(self, seconds: float) -> Schedule:
        """The same round, whose last server step ends so many seconds later: edge servers agree first."""
        last = max(n for n, step in enumerate(self.steps) if isinstance(step, Aggregate))
        step = self.steps[last]
        assert isinstance(step, Aggregate)
        steps = (*self.steps[:last], step._replace(agrees_s=seconds), *self.steps[last + 1 :])
        return replace(self, steps=steps)

    def superposed(self, receive_snr: float) -> Schedule:
        """The same round, in which all clients send their updates at once, when the last has trained, and the
        server receives the sum.

        Args:
            receive_snr: the signal-to-noise ratio, linear, with which the loudest arrives.
        """
        sends = [self.steps[n] for n in self.sends["uplink"]]
        ready = [send.after[0] for send in sends]
        steps = [
            step._replace(after=(step.after[0], *(i for i in ready if i != step.after[0])))
            if isinstance(step, Send) and step.direction == "uplink"
            else step
            for step in self.steps
        ]
        return replace(self, steps=tuple(steps), receive_snr=receive_snr)

    def over_the_air(self, snrs_db: Mapping[int, float]) -> Schedule:
        """The same round, in which what each client sends of its batches goes over a link of this mean
        signal-to-noise ratio."""
        steps = [
            step._replace(snr_db=snrs_db[step.client])
            if isinstance(step, Pass) and step.stage == "front"
            else step
            for step in self.steps
        ]
        return replace(self, steps=tuple(steps))

    def giving_class_images(self, images: int) -> Schedule:
        """The same round, in which the server generates so many class images for each client that encodes its
        samples, and sends them before it trains.

        Args:
            images: for each such client.
        """
        steps: list[Step] = []
        for step in self.steps:
            if isinstance(step, Train) and step.encodes:
                paint = Generate(f"paint-{step.client}", SERVER_ID, images)
                name = f"pictures-{step.client}"
                given = Send(name, SERVER_ID, step.client, "downlink", (paint.id,), pictures=images)
                steps += [paint, given]
                step = step._replace(after=(*step.after, given.id))
            steps.append(step)
        return replace(self, steps=tuple(steps))

    def stacking(self, bytes_of: Mapping[int, int]) -> Schedule:
        """The same round, whose updates change base weights.

        Args:
            bytes_of: what the server sends each client, with what has changed since it got them last.
        """
        steps = [
            step._replace(bytes=bytes_of[step.receiver])
            if isinstance(step, Send) and step.brings_model and step.receiver in bytes_of
            else step
            for step in self.steps
        ]
        return replace(self, steps=tuple(steps), stacks=True)

    def without(self, client: int) -> Schedule:
        """The same round, as if this client had not been selected."""
        removed = {step.id for step in self.steps if _takes_part(client, step)}
        kept = (step for step in self.steps if step.id not in removed)
        return Schedule(
            self.round,
            tuple(step._replace(after=tuple(i for i in step.after if i not in removed)) for step in kept),
        )

    def prune(self, outcome: Mapping[str, str]) -> Schedule:
        """What is left to do of a round once it is known which steps will be done: the aggregate, and all
        that reaches it; of one that fails nothing does."""
        awaited = {i for step in self.steps for i in step.after}
        wanted = {step.id for step in self.steps if isinstance(step, Aggregate)} - awaited
        for step in reversed(self.steps):
            if isinstance(step, Aggregate):
                if step.id in wanted and outcome.get(step.id) != "failed":
                    wanted |= {i for i in step.after if outcome[i] == "done"}
            # what a transfer carries, and what it waits for where that is done: a ring's others, not a failed
            # hop; on the air it only begins together with others, which may be silent
            elif step.id in wanted:
                wanted |= {
                    i
                    for n, i in enumerate(step.after)
                    if n == 0
                    or not isinstance(step, Send)
                    or (outcome[i] == "done" and self.receive_snr is None)
                }
        if len(wanted) == len(self.steps):
            return self
        kept = (step for step in self.steps if step.id in wanted)
        steps = tuple(step._replace(after=tuple(i for i in step.after if i in wanted)) for step in kept)
        models = None if self.models is None else _left(self.models, steps)
        return replace(self, steps=steps, models=models)

    def using(self, samples: Mapping[int, int]) -> Schedule:
        """The same round, in which each of these clients trains on so many of its samples."""
        steps = [
            step._replace(samples=samples.get(step.client)) if isinstance(step, Train) else step
            for step in self.steps
        ]
        return replace(self, steps=tuple(steps))

    @property
    def used(self) -> dict[int, int]:
        """On how many of its samples each client trains that does not train on all."""
        return {
            step.client: step.samples
            for step in self.steps
            if isinstance(step, Train) and step.samples is not None
        }

    @property
    def pictures(self) -> dict[int, int]:
        """On how many generated pictures each client, or the server, trains beside its own samples."""
        return {
            step.client: step.pictures for step in self.steps if isinstance(step, Train) and step.pictures
        }


def _is_served(step: Train | Pass) -> bool:
    """Whether a step is the server's own, not a client's, nor what stands for one."""
    return step.node == SERVER_NODE if isinstance(step, Pass) else step.client == SERVER_ID


def _computes_at(step: Train | Generate | Pass | Validate | Score | Aggregate) -> int:
    if isinstance(step, Aggregate):
        return step.at
    if isinstance(step, Pass) and step.stage in SERVED:
        return SERVER_ID
    if isinstance(step, Train) and step.at_server:
        return SERVER_ID
    return step.client


def _left(models: Mixing, steps: Collection[Step]) -> Mixing:
    """What becomes of models of which these steps alone are done."""
    trains = {step.client for step in steps if isinstance(step, Train)}
    hops: list[set[tuple[int, int]]] = [set() for _ in (models.weights, *models.more)]
    for step in steps:
        if isinstance(step, Send) and step.direction == "sidelink" and step.receiver in trains:
            hops[step.mixing].add((models.node_of[step.sender], models.node_of[step.receiver]))
    return models.arriving(*hops)


def _takes_part(client: int, step: Step) -> bool:
    """Whether a step computes for this client, or one of its ends is this client."""
    if isinstance(step, Aggregate):
        return False
    if isinstance(step, Send):
        return client in (step.sender, step.receiver)
    return step.client == client
