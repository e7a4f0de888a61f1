"""What a schedule consists of: steps, each with the ids of those it waits for."""

from __future__ import annotations

from typing import Literal, NamedTuple

from fedray.randomness import SERVER_ID
from fedray.secure.sizes import Message

SERVER_NODE = "server"  # the server's name in a timeline; its number, where a client's stands, is SERVER_ID
FIRST_EDGE = SERVER_ID - 1  # the number of edge server 0; those of the others go down from there
Direction = Literal["uplink", "downlink", "sidelink", "backhaul"]
# What goes back over each of a split model's crossings.
BACK = {"smashed": "gradients", "features": "feature_gradients"}
SERVED = ("server_forward_backward", "server_forward", "server_backward")  # passes that the server makes


def client_node(client: int) -> str:
    """The name in a timeline of a client, of the server, or of an edge server, by its number."""
    if client <= FIRST_EDGE:
        return f"edge-{FIRST_EDGE - client}"
    return SERVER_NODE if client == SERVER_ID else f"client-{client}"


def node_client(node: str) -> int:
    """The number of a client, of the server, or of an edge server, by its name in a recorded timeline."""
    if node.startswith("edge-"):
        return FIRST_EDGE - int(node.removeprefix("edge-"))
    return SERVER_ID if node == SERVER_NODE else int(node.removeprefix("client-"))


class Train(NamedTuple):
    """Client `client` trains, from the buffer its first predecessor leaves, on its own samples (on so many
    `samples` of them; None: on all) and so many generated `pictures`. The server, as a client of its own
    number, trains on pictures alone, from the global buffer. In its first local update a client `encodes` its
    samples, where its learner keeps what frozen networks make of them. Samples that have been collected
    stand for a client's, and are trained on `at_server`, from the global buffer."""

    id: str
    client: int
    after: tuple[str, ...]
    pictures: int = 0
    encodes: bool = False
    samples: int | None = None
    at_server: bool = False

    @property
    def node(self) -> str:
        return SERVER_NODE if self.at_server else client_node(self.client)


class Generate(NamedTuple):
    """Client `client`, or the server, generates so many new `pictures`, to train on or, in a `trial`, to be
    scored."""

    id: str
    client: int
    pictures: int
    after: tuple[str, ...] = ()
    trial: bool = False

    @property
    def node(self) -> str:
        return client_node(self.client)


class Pass(NamedTuple):
    """A (micro-)batch of client `client` passes through a part of a model that is cut: through the client's
    (front, tail, and front backwards: back) or the server's (server_forward_backward: both ways and the loss;
    in U-shape server_forward and server_backward). `encodes`: as Train. `snr_db`: the mean signal-to-noise
    ratio of the client's uplink in this round, where its front goes on the air."""

    id: str
    client: int
    stage: str
    batch: int
    part: int  # which micro-batch, of so many `parts` that share one step of their optimizers
    parts: int
    samples: int
    after: tuple[str, ...]
    encodes: bool = False
    snr_db: float | None = None
    batches: int = 1  # of the client's local update, of which this is one

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


class Score(NamedTuple):
    """Client `client` scores so many generated `pictures` with the model that it has trained."""

    id: str
    client: int
    pictures: int
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
    so many `bytes`. With `given` it is sent only where that input of a server step came in time. Of the
    mixings of a round, one after another, what neighbours send each other is for `mixing`, from 0."""

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
    trial: bool = False  # its pictures are to be scored, not to train on
    mixing: int = 0

    @property
    def brings_model(self) -> bool:
        """Whether it is the global model, on its way to a client."""
        other = (self.pictures, self.samples or None, self.message)
        return self.direction == "downlink" and not self.state and other == (None, None, None)

    @property
    def node(self) -> str:
        return client_node(self.sender)

    @property
    def peer(self) -> str:
        return client_node(self.receiver)

    @property
    def client(self) -> int:
        """The client whose link carries it: the one at an end, or the sender of two; of a backhaul the edge
        server."""
        if self.sender >= 0:
            return self.sender
        return self.receiver if self.receiver >= 0 else min(self.sender, self.receiver)


class Quorum(NamedTuple):
    """At least so many of these inputs must have come in time; with `given`, if that step is done."""

    inputs: tuple[str, ...]
    least: int
    given: str | None = None


class Aggregate(NamedTuple):
    """The server aggregates the buffers of all predecessors into the next global buffer; or of those that are
    there at the deadline, or of the first `min_updates`. It fails where a quorum is missed: then what waits
    for it is skipped, and the global buffer stays as it is. Of its predecessors, `beside` is the server's own
    work: it waits for that too, where it has no deadline, and does not count it among updates. What the
    server has begun it ends before it aggregates. It ends `agrees_s` later, once edge servers have agreed on
    what came of it. How it weighs them it may find out by models that it evaluates, on so many `evaluated`
    samples in all. It happens `at` the server, at an edge server, or at a client that mixes models, by
    number; one that `only_ends` a round takes nothing."""

    id: str
    after: tuple[str, ...]
    deadline_s: float | None = None  # since the round's start
    min_updates: int | None = None
    quorums: tuple[Quorum, ...] = ()
    agrees_s: float = 0.0
    beside: tuple[str, ...] = ()
    evaluated: int = 0
    at: int = SERVER_ID
    only_ends: bool = False

    @property
    def node(self) -> str:
        return client_node(self.at)


Step = Train | Generate | Pass | Validate | Score | Send | Aggregate
