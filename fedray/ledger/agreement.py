"""The messages by which edge servers agree on a round's head, and the seconds that they take."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256

from fedray.ledger.pbft import CLIENT, Group, Message, Replica
from fedray.scenario.consensus import Pbft

# in whose place a head stands while times are computed before anything has trained
NO_DIGEST = "0" * 64
MOST_VIEWS = 100  # far more than faulty replicas can spoil


@dataclass(frozen=True)
class Sent:
    """A message on its way.

    Attributes:
        message: what is sent.
        receiver: replica by number, or CLIENT.
        t0_s: when its sender begins to send it, in seconds since the server handed its head in.
        t1_s: when it has arrived.
    """

    message: Message
    receiver: int
    t0_s: float
    t1_s: float


@dataclass
class Agreement:
    """How replicas have agreed on a head.

    Attributes:
        messages: in the order in which they were sent.
        commits: a quorum's, of one view, as the server has them.
        prepared_s: when the first replica had a quorum of prepares.
        committed_s: when the server had a quorum of commits.
    """

    messages: list[Sent] = field(default_factory=list)
    commits: tuple[Message, ...] = ()
    prepared_s: float = 0.0
    committed_s: float = 0.0

    @property
    def view(self) -> int:
        return self.commits[0].view

    @property
    def equivocated(self) -> list[tuple[Message, Message]]:
        """Two proposals for one view that the same primary has signed."""
        seen: dict[tuple[int, int], Message] = {}
        pairs: dict[tuple[int, int], tuple[Message, Message]] = {}
        for sent in self.messages:
            shown = (m for change in sent.message.proof for m in (change, *change.proof))
            for m in shown:
                key = (m.view, m.sender)
                if m.kind == "pre-prepare" and seen.setdefault(key, m).digest != m.digest:
                    pairs.setdefault(key, (seen[key], m))
        return list(pairs.values())


def false_digest(digest: str) -> str:
    """Of a block that nobody handed in, which an equivocating replica proposes beside the true one."""
    return sha256(f"not {digest}".encode()).hexdigest()


class Network:
    """Replicas and the server, each with one link out, on which messages follow each other.

    Args:
        section: of the scenario.
        group: signs and verifies.
    """

    def __init__(self, section: Pbft, group: Group) -> None:
        self.section = section
        self.group = group
        self.free_s: dict[int, float] = {}  # of each sender's link
        self.queue: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = itertools.count()
        self.result = Agreement()
        self.commits: dict[tuple[int, str], dict[int, Message]] = {}  # at the server, by view and digest
        self.replicas: dict[int, Replica] = {}

    def agree(self, round_number: int, digest: str, view: int) -> Agreement:
        """From the server's request until it has a quorum of commits.

        Args:
            round_number: from 1.
            digest: of the round's head.
            view: in which the replicas are.
        """
        numbers = range(self.section.validators)
        self.replicas = {i: Replica(i, self.group, round_number, view) for i in numbers}
        request = self.group.sign(Message("request", round_number, 0, digest, CLIENT))
        for i in numbers:
            self._send(request, i, 0.0)
        while not self.result.commits:
            now_s, _, event = heapq.heappop(self.queue)
            event(now_s)
        return self.result

    def _send(self, message: Message, receiver: int, now_s: float) -> None:
        t0_s = max(now_s, self.free_s.get(message.sender, 0.0))
        self.free_s[message.sender] = t0_s + 8 * message.nbytes / self.section.rate_bps
        t1_s = self.free_s[message.sender] + self.section.latency_s
        self.result.messages.append(Sent(message, receiver, t0_s, t1_s))
        self._at(t1_s, lambda s: self._arrive(message, receiver, s))

    def _at(self, when_s: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self.queue, (when_s, next(self.order), event))

    def _arrive(self, message: Message, receiver: int, now_s: float) -> None:
        if receiver == CLIENT:
            self._count(message, now_s)
            return
        replica = self.replicas[receiver]
        before = (replica.view, replica.request is not None)
        self._spread(replica, replica.receive(message), now_s)
        if replica.request is not None and before != (replica.view, True):
            self._be_patient(replica, now_s)

    def _be_patient(self, replica: Replica, now_s: float) -> None:
        """Begins to wait for a view, twice as long as for the one before (Sec. 4.4)."""
        view = replica.view
        assert view < MOST_VIEWS
        first = min(r.view for r in self.replicas.values())
        patience_s = self.section.timeout_s * 2 ** (view - first)

        def expire(s: float) -> None:
            self._spread(replica, replica.expire(view), s)
            if replica.view != view:
                self._be_patient(replica, s)

        self._at(now_s + patience_s, expire)

    def _spread(self, replica: Replica, messages: list[Message], now_s: float) -> None:
        """What a replica sends to all; what it says to itself arrives at once."""
        for message in messages:
            if message.kind == "commit" and not self.result.prepared_s:
                self.result.prepared_s = now_s
            for receiver, told in self._as_told(replica.number, message).items():
                self._send(told, receiver, now_s)
            self._spread(replica, replica.receive(message), now_s)

    def _as_told(self, sender: int, message: Message) -> Mapping[int, Message]:
        """What each receiver gets of a message: the same, but from a faulty sender."""
        others = [i for i in self.replicas if i != sender]
        if message.kind == "commit":
            others.append(CLIENT)
        if sender in self.section.silent:
            return {}
        if sender not in self.section.equivocating or message.kind in ("view-change", "new-view"):
            return dict.fromkeys(others, message)
        other = self.group.sign(replace(message, digest=false_digest(message.digest)))
        return {i: message if n < len(others) // 2 else other for n, i in enumerate(others)}

    def _count(self, commit: Message, now_s: float) -> None:
        if not self.group.is_sound(commit):
            return
        equal = self.commits.setdefault((commit.view, commit.digest), {})
        equal[commit.sender] = commit
        if len(equal) >= self.group.quorum:
            self.result.commits = tuple(equal[i] for i in sorted(equal))
            self.result.committed_s = now_s


def agreement(
    section: Pbft, round_number: int, digest: str = NO_DIGEST, group: Group | None = None
) -> Agreement:
    """How the edge servers agree on a round's head. The times are the same whatever the head is, and known
    before anything has trained. In the first round views pass until one has a primary that gets a quorum; its
    primary stays.

    Args:
        section: of the scenario.
        round_number: from 1.
        digest: of the head.
        group: signs and verifies; None: nothing is signed.
    """
    view = _expected(section.model_dump_json(), False)[1] if round_number > 1 else 0
    return Network(section, group or Group(section.validators)).agree(round_number, digest, view)


def agreement_s(section: Pbft, round_number: int) -> float:
    """How long they take to agree, in seconds.

    Args:
        section: of the scenario.
        round_number: from 1.
    """
    return _expected(section.model_dump_json(), round_number > 1)[0]


@cache
def _expected(section: str, later: bool) -> tuple[float, int]:
    """Seconds, and the view of the agreement in the first round, or in any later one."""
    made = agreement(Pbft.model_validate_json(section), 2 if later else 1)
    return made.committed_s, made.view
