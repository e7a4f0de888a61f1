"""Practical Byzantine fault tolerance (Castro and Liskov 1999, Sec. 4): n replicas agree on one block a
round, though f of them, n > 3 f, may say anything or nothing.

The client hands its block to all replicas. The primary of a view proposes it (pre-prepare), the others repeat
what they were proposed (prepare), and whoever has a quorum of equal ones commits. Where that takes too long,
replicas ask for the next view (view-change), whose primary shows a quorum of those (new-view) and proposes
what may have been committed before. Blocks travel as hashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from fedray.ledger.records import canonical

Kind = Literal["request", "pre-prepare", "prepare", "commit", "view-change", "new-view"]
PROPOSALS = ("pre-prepare", "new-view")  # of a view's primary
CLIENT = -1  # the sender of requests, to whom commits go
NO_SIGNATURE = "0" * 128


@dataclass(frozen=True)
class Message:
    """What one replica tells others.

    Attributes:
        kind: of message.
        round: whose block is agreed on.
        view: in which; of a view-change the one that is asked for.
        digest: of the block, sha256 in hexadecimal digits; empty in a view-change.
        sender: replica by number, or CLIENT.
        proof: signed messages that it rests on. Of a view-change: the proposal that its sender got, and
            behind it the prepares of a quorum where it has them. Of a new-view: the view-changes of a quorum.
        signature: Ed25519's over all the rest, in hexadecimal digits.
    """

    kind: Kind
    round: int
    view: int
    digest: str
    sender: int
    proof: tuple[Message, ...] = ()
    signature: str = NO_SIGNATURE

    @property
    def signed_bytes(self) -> bytes:
        """What its sender signs."""
        return canonical({"pbft": asdict(replace(self, signature=""))})

    @property
    def nbytes(self) -> int:
        """On the wire: kind 1, round 8, view 8, sender 4, digest 32 and signature 64 bytes, and the proof."""
        return 117 + sum(m.nbytes for m in self.proof)


@dataclass(frozen=True)
class Group:
    """The replicas, and how they sign.

    Args:
        replicas: how many, n.
        sign: a message with its sender's signature.
        verifies: whether a message has its sender's signature.
    """

    replicas: int
    sign: Callable[[Message], Message] = lambda message: message
    verifies: Callable[[Message], bool] = lambda message: True

    @property
    def faulty(self) -> int:
        """How many may be faulty: the greatest f of n > 3 f."""
        return (self.replicas - 1) // 3

    @property
    def quorum(self) -> int:
        """Any two of so many share an honest one: 2 f + 1 of 3 f + 1."""
        return (self.replicas + self.faulty) // 2 + 1

    def primary(self, view: int) -> int:
        return view % self.replicas

    def prepared(self, proposal: Message | None, prepares: Iterable[Message]) -> bool:
        """Whether a proposal and equal prepares of others make a quorum."""
        if proposal is None or proposal.kind not in PROPOSALS:
            return False
        key = (proposal.round, proposal.view, proposal.digest)
        equal = [m for m in prepares if m.kind == "prepare" and (m.round, m.view, m.digest) == key]
        senders = {m.sender for m in equal} - {proposal.sender}
        return len(senders) + 1 >= self.quorum

    def is_sound(self, message: Message) -> bool:
        """Whether it and all that it rests on have their senders' signatures; a proposal is its primary's."""
        if not self.verifies(message) or not all(map(self.is_sound, message.proof)):
            return False
        if message.kind in PROPOSALS:
            return message.sender == self.primary(message.view)
        return True

    def committed_before(self, changes: Sequence[Message]) -> str | None:
        """The block that may have been committed in an earlier view, as view-changes show: the one that was
        prepared in the latest; None: none was."""
        shown = [m.proof for m in changes if m.proof and m.proof[0].round == m.round]
        shown = [proof for proof in shown if self.prepared(proof[0], proof[1:])]
        if not shown:
            return None
        return max(shown, key=lambda proof: proof[0].view)[0].digest


class Replica:
    """One replica in the agreement on one block.

    Args:
        number: from 0.
        group: all replicas.
        round_number: whose block it is.
        view: in which it begins.
    """

    def __init__(self, number: int, group: Group, round_number: int, view: int) -> None:
        self.number = number
        self.group = group
        self.round = round_number
        self.view = view
        self.request: Message | None = None
        self.proposal: Message | None = None  # accepted in this view
        self.seen: Message | None = None  # the last proposal of a primary, accepted or not
        self.prepares: dict[tuple[int, int], Message] = {}  # by view and sender
        self.commits: dict[tuple[int, int], Message] = {}
        self.changes: dict[tuple[int, int], Message] = {}
        self.sent: set[tuple[Kind, int]] = set()  # with its view
        self.certificate: tuple[Message, ...] = ()  # proposal and prepares of the last view that had a quorum
        self.decided: str | None = None

    def accepts(self, digest: str) -> bool:
        """Whether a block may be proposed: it is the one that the client has handed in."""
        return self.request is not None and self.request.digest == digest

    def receive(self, message: Message) -> list[Message]:
        """What it sends to all others, itself among them, upon a message."""
        if message.round != self.round or not self.group.is_sound(message):
            return []
        key = (message.view, message.sender)
        if message.kind == "request":
            self.request = message
        elif message.kind == "pre-prepare":
            self._consider(message)
        elif message.kind == "prepare":
            self.prepares.setdefault(key, message)
        elif message.kind == "commit":
            self.commits.setdefault(key, message)
        elif message.kind == "view-change":
            self.changes.setdefault(key, message)
        elif message.kind == "new-view":
            self._enter(message)
        return self._act()

    def expire(self, view: int) -> list[Message]:
        """What it sends when its patience with a view has ended."""
        if self.decided is not None or view != self.view:
            return []
        return self._leave(view + 1)

    def _consider(self, proposal: Message) -> None:
        """A proposal of the primary; the first acceptable one of a view counts."""
        if self.seen is None or proposal.view >= self.seen.view:
            self.seen = proposal
        if proposal.view == self.view and self.proposal is None and self.accepts(proposal.digest):
            self.proposal = proposal

    def _enter(self, new: Message) -> None:
        """A new view, where a quorum asks for it, and its proposal is what may have been committed before."""
        asked = ("view-change", new.round, new.view)
        changes = {m.sender: m for m in new.proof if (m.kind, m.round, m.view) == asked}
        before = self.group.committed_before(list(changes.values()))
        fits = new.digest == before if before is not None else self.accepts(new.digest)
        if new.view < self.view or len(changes) < self.group.quorum or not fits:
            return
        if self.proposal is None or self.proposal.view < new.view:
            self.view = new.view
            self.proposal = self.seen = new

    def _act(self) -> list[Message]:
        """Whatever has become due."""
        out: list[Message] = []
        wished = Counter(view for view, _ in self.changes if view > self.view)
        backed = [view for view, replicas in wished.items() if replicas > self.group.faulty]
        if backed:  # of f + 1 that ask for it one is honest
            out += self._leave(min(backed))
        if self.group.primary(self.view) == self.number:
            out += self._propose()
        proposal = self.proposal
        if proposal is None or proposal.view != self.view:
            return out
        if proposal.sender != self.number:
            out += self._once("prepare", proposal.digest)
        prepares = [m for (view, _), m in self.prepares.items() if view == self.view]
        if self.group.prepared(proposal, prepares):
            self.certificate = (proposal, *(m for m in prepares if m.digest == proposal.digest))
            out += self._once("commit", proposal.digest)
        key = (self.view, proposal.digest)
        equal = {m.sender for m in self.commits.values() if (m.view, m.digest) == key}
        if self.decided is None and len(equal) >= self.group.quorum:
            self.decided = proposal.digest
        return out

    def _propose(self) -> list[Message]:
        """The primary's proposal: the client's block in the first view, behind a quorum's wish in a later
        one."""
        changes = [m for (view, _), m in self.changes.items() if view == self.view]
        if ("view-change", self.view) in self.sent:
            before = self.group.committed_before(changes)
            digest = before or (self.request.digest if self.request else None)
            if digest is None or len(changes) < self.group.quorum:
                return []
            return self._once("new-view", digest, tuple(changes))
        if self.request is None or self.proposal is not None:
            return []
        return self._once("pre-prepare", self.request.digest)

    def _leave(self, view: int) -> list[Message]:
        self.view = view
        self.proposal = None
        return self._once("view-change", "", self.certificate or ((self.seen,) if self.seen else ()))

    def _once(self, kind: Kind, digest: str, proof: tuple[Message, ...] = ()) -> list[Message]:
        if (kind, self.view) in self.sent:
            return []
        self.sent.add((kind, self.view))
        return [self.group.sign(Message(kind, self.round, self.view, digest, self.number, proof))]
