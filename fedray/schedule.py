"""A round is a schedule: steps, and what each waits for.

A schedule says who sends what to whom. It trains nothing and moves nothing: the clock costs it, an executor
carries it out, the run folder keeps it. Values flow along `after`: a `Train` step takes the buffer its first
predecessor holds and leaves a new one, a `Send` step moves its first predecessor's and only waits for others,
a `Aggregate` step combines all that reach it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from fedray.randomness import SERVER_ID
from fedray.secure.sizes import Message

SERVER_NODE = "server"  # the server's name in a timeline; its number, where a client's stands, is SERVER_ID
Direction = Literal["uplink", "downlink", "sidelink"]
# What goes back over each of a split model's crossings.
BACK = {"smashed": "gradients", "features": "feature_gradients"}
SERVED = ("server_forward_backward", "server_forward", "server_backward")  # passes that the server makes


def client_node(client: int) -> str:
    """The name in a timeline of a client, or of the server, by its number."""
    return SERVER_NODE if client == SERVER_ID else f"client-{client}"


def node_client(node: str) -> int:
    """The number of a client, or of the server, by its name in a recorded timeline."""
    return SERVER_ID if node == SERVER_NODE else int(node.removeprefix("client-"))


class Train(NamedTuple):
    """Client `client` trains, from the buffer its first predecessor leaves, on its own samples and so many
    generated `pictures`. The server, as a client of its own number, trains on pictures alone, from the global
    buffer. In its first local update a client `encodes` its samples, where its learner keeps what frozen
    networks make of them."""

    id: str
    client: int
    after: tuple[str, ...]
    pictures: int = 0
    encodes: bool = False

    @property
    def node(self) -> str:
        return client_node(self.client)


class Generate(NamedTuple):
    """Client `client`, or the server, generates so many new `pictures`."""

    id: str
    client: int
    pictures: int
    after: tuple[str, ...] = ()

    @property
    def node(self) -> str:
        return client_node(self.client)


class Pass(NamedTuple):
    """A (micro-)batch of client `client` passes through a part of a model that is cut: through the client's
    (front, tail, and front backwards: back) or the server's (server_forward_backward: both ways and the loss;
    in U-shape server_forward and server_backward). `encodes`: as Train."""

    id: str
    client: int
    stage: str
    batch: int
    part: int  # which micro-batch, of so many `parts` that share one step of their optimizers
    parts: int
    samples: int
    after: tuple[str, ...]
    encodes: bool = False

    @property
    def node(self) -> str:
        return SERVER_NODE if self.stage in SERVED else client_node(self.client)

    @property
    def begins_turn(self) -> bool:
        """Whether a client's local update begins with it."""
        return self.stage == "front" and self.batch == self.part == 0


class Validate(NamedTuple):
    """Client `client` tries on its own samples what another one handed it: the model, and the last one that
    was accepted before it."""

    id: str
    client: int
    after: tuple[str, ...]

    @property
    def node(self) -> str:
        return client_node(self.client)


class Send(NamedTuple):
    """`sender` sends `receiver` (numbers; the server is SERVER_ID) the buffer it holds, or a `share` of it in
    `messages` that each wait for an answer (two buffers: a share of 2); with no predecessor it is the
    server's global buffer. Or it sends
    generated `pictures`, or what `crossing` names of so many `samples` in a split model (smashed, features,
    feature_gradients, gradients), of (micro-)batch `batch`, `part`. Or, with `state`, what a client keeps
    between its local updates, which its receiver goes on with. Or a small `message` of secure aggregation, of
    so many `bytes`. With `given` it is sent only where that input of a server step came in time."""

    id: str
    sender: int
    receiver: int
    direction: Direction
    after: tuple[str, ...] = ()
    share: float = 1.0
    messages: int = 1
    pictures: int | None = None
    crossing: str | None = None
    samples: int = 0
    batch: int | None = None
    part: int | None = None
    state: bool = False
    bytes: int | None = None
    message: Message | None = None
    given: str | None = None

    @property
    def node(self) -> str:
        return client_node(self.sender)

    @property
    def peer(self) -> str:
        return client_node(self.receiver)

    @property
    def client(self) -> int:
        """The client whose link carries it: the one at an end, or the sender of two."""
        return self.receiver if self.sender == SERVER_ID else self.sender


class Quorum(NamedTuple):
    """At least so many of these inputs must have come in time; with `given`, if that step is done."""

    inputs: tuple[str, ...]
    least: int
    given: str | None = None


class Aggregate(NamedTuple):
    """The server aggregates the buffers of all predecessors into the next global buffer; or of those that are
    there at the deadline, or of the first `min_updates`. It fails where a quorum is missed: then what waits
    for it is skipped, and the global buffer stays as it is. How it weighs them it may find out by models that
    it evaluates, on so many `evaluated` samples in all."""

    id: str
    after: tuple[str, ...]
    deadline_s: float | None = None  # since the round's start
    min_updates: int | None = None
    quorums: tuple[Quorum, ...] = ()
    evaluated: int = 0

    @property
    def node(self) -> str:
        return SERVER_NODE


Step = Train | Generate | Pass | Validate | Send | Aggregate


class Payments(NamedTuple):
    """What the clients of a round are paid, in money: the sum of their payments and of their true costs, and
    what attackers gain by the bids that they made instead of their true costs (None: no attacker bids)."""

    paid: float
    social_cost: float
    misreport_gain: float | None = None


@dataclass(frozen=True)
class Schedule:
    """One round, its steps in an order in which each stands behind those it waits for."""

    round: int
    steps: tuple[Step, ...]
    unreached: tuple[int, ...] = ()  # clients that were selected, and that no step reaches
    payments: Payments | None = None  # where clients are paid
    weights: Mapping[int, int] | None = None  # of its clients, where these are a round's own

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
        return Schedule(self.round, tuple(steps), weights=self.weights)

    def encoding(self, encoded: Collection[int]) -> Schedule:
        """The same round, in which all clients but these encode their samples before they train."""
        steps = list(self.steps)
        first: dict[int, int] = {}  # the place of each client's first step of training
        for n, step in enumerate(steps):
            if isinstance(step, Train | Pass) and step.node != SERVER_NODE:
                first.setdefault(step.client, n)
        for client in first.keys() - set(encoded):
            step = steps[first[client]]
            assert isinstance(step, Train | Pass)
            steps[first[client]] = step._replace(encodes=True)
        return Schedule(self.round, tuple(steps), self.unreached, self.payments, self.weights)

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
        return Schedule(self.round, tuple(steps), self.unreached, self.payments, self.weights)

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
            # hop
            elif step.id in wanted:
                wanted |= {
                    i
                    for n, i in enumerate(step.after)
                    if n == 0 or not isinstance(step, Send) or outcome[i] == "done"
                }
        if len(wanted) == len(self.steps):
            return self
        kept = (step for step in self.steps if step.id in wanted)
        return Schedule(
            self.round,
            tuple(step._replace(after=tuple(i for i in step.after if i in wanted)) for step in kept),
            weights=self.weights,
        )

    @property
    def pictures(self) -> dict[int, int]:
        """On how many generated pictures each client, or the server, trains beside its own samples."""
        return {
            step.client: step.pictures for step in self.steps if isinstance(step, Train) and step.pictures
        }


def _computes_at(step: Train | Generate | Pass | Validate | Aggregate) -> int:
    if isinstance(step, Aggregate) or (isinstance(step, Pass) and step.stage in SERVED):
        return SERVER_ID
    return step.client


def _takes_part(client: int, step: Step) -> bool:
    """Whether a step computes for this client, or one of its ends is this client."""
    if isinstance(step, Aggregate):
        return False
    if isinstance(step, Send):
        return client in (step.sender, step.receiver)
    return step.client == client
