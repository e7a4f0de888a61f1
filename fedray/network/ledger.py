"""What a round cost, step by step, and what a run has cost so far."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar

from fedray.scenario.network import DIRECTIONS
from fedray.schedule import Payments, Schedule
from fedray.steps import SERVER_NODE, Generate, Send, client_node, node_client


class Event(NamedTuple):
    """One step with its cost: a line of timeline.jsonl. Times since the run's start, in seconds."""

    round: int
    id: str
    after: tuple[str, ...]
    # train, generate, send, aggregate, a split model's pass; wait: a device that has nothing to do
    event: str
    node: str
    peer: str | None
    direction: str | None
    flops: float
    bytes: int
    t0_s: float
    t1_s: float
    energy_j: float
    # lost: never arrived; late: after the round had closed; dropped: the device vanished; skipped;
    # failed: too few reached a server step
    outcome: str = "done"
    messages: int = 1
    encoded: bool = False  # the client's samples too, once (see schedule.Train)
    # Who computes, whose batch the server serves, or whose link carries it (the sender's of two clients);
    # none: the server for itself.
    client: int | None = None
    batch: int | None = None  # of a split model's pass or transfer
    part: int | None = None  # of that batch: its micro-batch
    waits_s: float = 0.0  # of its time, in which its device does nothing
    symbols: int = 0  # channel uses of what goes on the air as it is, in place of bytes; lost: would have

    def row(self) -> dict[str, Any]:
        """A line of timeline.jsonl, which says nothing of waiting or of symbols where there are none."""
        row = self._asdict()
        for name in ("waits_s", "symbols"):
            if not row[name]:
                del row[name]
        return row

    @property
    def occupied_node(self) -> str | None:
        """The node of the client whose time it takes: that computes, or whose link carries it."""
        if self.client is None or (self.event != "send" and self.node == SERVER_NODE):
            return None
        return client_node(self.client)


@dataclass(frozen=True)
class Ledger:
    """Running totals of a run: bytes on the air, simulated seconds, joules; money where clients are paid."""

    transfers: int = 0
    bytes_uplink: int = 0
    bytes_downlink: int = 0
    bytes_sidelink: int = 0
    sim_time_s: float = 0.0
    energy_j: float = 0.0
    # clients (by their nodes) that go on with what is late, and until when
    busy: Mapping[str, float] = field(default_factory=dict)
    encoded: Sequence[int] = ()  # clients that have encoded their samples, where that costs something
    # totals of schedule.Payments.sums by name; empty where nobody is paid
    money: Mapping[str, float] = field(default_factory=dict)
    # generated pictures to train on that each node has made or been sent
    pictures: Mapping[str, int] = field(default_factory=dict)
    # complex symbols that were sent as they are, in place of bytes; those of clients that send at once count
    # for each, though they take the band once
    symbols: int = 0
    bytes_backhaul: int = 0  # between edge servers and the server
    # of updates that have gone into base weights, and how many of them each client's node has got
    stacked_bytes: int = 0
    got_bytes: Mapping[str, int] = field(default_factory=dict)

    @property
    def busy_clients(self) -> list[int]:
        return [node_client(node) for node in self.busy]

    def missed_bytes(self, client: int) -> int:
        """Of the updates that have gone into base weights since a client got these last."""
        return self.stacked_bytes - self.got_bytes.get(client_node(client), 0)

    def totals(self) -> dict[str, Any]:
        left_out = {"busy", "encoded", "money", "pictures", "stacked_bytes", "got_bytes"}
        left_out |= {name for name in ("symbols", "bytes_backhaul") if not getattr(self, name)}
        costs = {name: value for name, value in asdict(self).items() if name not in left_out}
        return costs | dict(self.money)

    def add(self, events: list[Event], schedule: Schedule | None = None) -> Ledger:
        """The totals with one more round. It ends with its aggregate; what comes later costs all the same,
        and keeps its device from the next.

        Args:
            events: the round's.
            schedule: of the round, whose steps the first events are; None: payments and pictures stay as they
                were.
        """
        sent = {d: sum(e.bytes for e in events if e.direction == d) for d in DIRECTIONS}
        now_s = max([self.sim_time_s, *(e.t1_s for e in events if e.event == "aggregate")])
        newly_encoded = (e.client for e in events if e.encoded and e.outcome in ("done", "late"))
        encoded = {client for client in newly_encoded if client is not None}
        return Ledger(
            self.transfers + sum(e.event == "send" and e.outcome != "skipped" for e in events),
            self.bytes_uplink + sent["uplink"],
            self.bytes_downlink + sent["downlink"],
            self.bytes_sidelink + sent["sidelink"],
            now_s,
            self.energy_j + sum(e.energy_j for e in events),
            self._busy(events, now_s),
            sorted(encoded.union(self.encoded)) if encoded else self.encoded,
            self._money_with(None if schedule is None else schedule.payments),
            self.pictures if schedule is None else self._pictures_with(events, schedule),
            # who is silent is lost, and has sent none
            self.symbols + sum(e.symbols for e in events if e.outcome != "lost"),
            self.bytes_backhaul + sum(e.bytes for e in events if e.direction == "backhaul"),
            *self._stacks_with(events, schedule),
        )

    def _money_with(self, payments: Payments | None) -> dict[str, float]:
        """The totals of money with those of one more round."""
        added = {} if payments is None else payments.sums
        return dict(self.money) | {name: self.money.get(name, 0.0) + value for name, value in added.items()}

    def _pictures_with(self, events: Sequence[Event], schedule: Schedule) -> Mapping[str, int]:
        """How many pictures each node has after one more round: what is late is there in the next."""
        pictures = dict(self.pictures)
        for step, event in zip(schedule.steps, events, strict=False):
            if not isinstance(step, Generate | Send) or not step.pictures or step.trial:
                continue
            if event.outcome in ("done", "late"):
                node = client_node(step.client)
                pictures[node] = pictures.get(node, 0) + step.pictures
        return pictures

    def _stacks_with(
        self, events: Sequence[Event], schedule: Schedule | None
    ) -> tuple[int, Mapping[str, int]]:
        """`stacked_bytes` and `got_bytes` after one more round."""
        if schedule is None or not schedule.stacks:
            return self.stacked_bytes, self.got_bytes
        stacked = self.stacked_bytes
        got = dict(self.got_bytes)
        for step, event in zip(schedule.steps, events, strict=False):
            if isinstance(step, Send) and event.outcome == "done":
                if step.brings_model:
                    got[client_node(step.receiver)] = self.stacked_bytes
                elif step.direction == "uplink":
                    stacked += event.bytes
        return stacked, got

    def _busy(self, events: list[Event], now_s: float) -> dict[str, float]:
        busy = {node: until_s for node, until_s in self.busy.items() if until_s > now_s}
        for e in events:
            if e.outcome == "late" and e.t1_s > now_s and (node := e.occupied_node):
                busy[node] = max(busy.get(node, 0.0), e.t1_s)
        return busy


Node = TypeVar("Node", bound=Hashable)


def idle_s(
    steps: Iterable[tuple[Node, Node | None, float, float]], start_s: float, end_s: float
) -> dict[Node, float]:
    """For how long each node of a round (in the order in which they first appear) neither computes nor sends
    nor receives.

    Args:
        steps: node, peer (none: it computes), start and end of each.
        start_s: of the round.
        end_s: of the round; what lasts longer counts until then.
    """
    spans: dict[Node, list[tuple[float, float]]] = defaultdict(list)
    for node, peer, t0_s, t1_s in steps:
        for end in (node,) if peer is None else (node, peer):
            spans[end].append((min(t0_s, end_s), min(t1_s, end_s)))
    return {node: _gaps_s(busy, start_s, end_s) for node, busy in spans.items()}


def _gaps_s(spans: list[tuple[float, float]], start_s: float, end_s: float) -> float:
    """Seconds from start to end that no span covers."""
    free_s = start_s
    gaps_s = 0.0
    for t0_s, t1_s in sorted(spans):
        gaps_s += max(0.0, t0_s - free_s)
        free_s = max(free_s, t1_s)
    return gaps_s + max(0.0, end_s - free_s)
