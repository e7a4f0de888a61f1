"""`consensus.jsonl`: how the edge servers of a run agreed on each round's head, and the check of it.

A line a round: the head's sha256, and the commits of a quorum, each signed by its edge server's key. The
message that each has signed follows from the line (see pbft.Message)."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from fedray.files import naming, write_synced
from fedray.ledger.agreement import agreement
from fedray.ledger.chain import Audit
from fedray.ledger.keys import SERVER, KeyRing, PublicKeys, edge_name
from fedray.ledger.pbft import CLIENT, Group, Message
from fedray.ledger.records import Record, Sha256, Signature, SignedHead, Whole, digest, line, parsed
from fedray.runs import reader
from fedray.scenario.consensus import Pbft

LINES = "consensus.jsonl"


class Proposal(Record):
    """What a primary has proposed, as it signed it."""

    round: Whole
    view: Whole
    digest: Sha256
    sender: Whole
    signature: Signature

    @property
    def message(self) -> Message:
        return Message(kind="pre-prepare", **self.model_dump())


class AgreedHead(Record):
    """What the edge servers agreed on in a round."""

    round: Whole
    head: Sha256  # of the head, as a line of the ledger
    view: Whole
    commits: dict[str, Signature]  # by the edge server's name
    equivocated: list[list[Proposal]]  # two proposals of one primary for the same view
    messages: Whole
    bytes: Whole
    prepared_s: float = Field(ge=0)  # since the server handed its head in: the first quorum of prepares
    committed_s: float = Field(ge=0)  # the quorum of commits at the server, at which the round ends

    def commit(self, edge: int, signature: str) -> Message:
        """What an edge server has signed."""
        return Message("commit", self.round, self.view, self.head, edge, signature=signature)


def owner(message: Message) -> str:
    """Whose key signs a message."""
    return SERVER if message.sender == CLIENT else edge_name(message.sender)


def agree(run: Path, section: Pbft, keys: KeyRing, round_number: int, head: str) -> None:
    """Has the edge servers agree on a round's head, and writes down how.

    Args:
        run: the run folder.
        section: of the scenario.
        keys: of server and edge servers.
        round_number: from 1.
        head: its sha256, as a line of the ledger.
    """

    def sign(message: Message) -> Message:
        return replace(message, signature=keys.sign(owner(message), message.signed_bytes))

    names = [SERVER, *map(edge_name, range(section.validators))]
    public = PublicKeys({name: keys.public(name) for name in names})

    def verifies(message: Message) -> bool:
        return public.verifies(owner(message), message.signature, message.signed_bytes)

    agreed = agreement(section, round_number, head, Group(section.validators, sign, verifies))
    entry = AgreedHead(
        round=round_number,
        head=agreed.commits[0].digest,
        view=agreed.view,
        commits={edge_name(commit.sender): commit.signature for commit in agreed.commits},
        equivocated=[list(map(_proposal, pair)) for pair in agreed.equivocated],
        messages=len(agreed.messages),
        bytes=sum(sent.message.nbytes for sent in agreed.messages),
        prepared_s=agreed.prepared_s,
        committed_s=agreed.committed_s,
    )
    file = run / LINES
    with naming(file), file.open("ab") as f:
        f.write(line(entry) + b"\n")


def _proposal(message: Message) -> Proposal:
    return Proposal(**{key: value for key, value in asdict(message).items() if key not in ("kind", "proof")})


def go_back(run: Path, done: int) -> None:
    """Forgets what was agreed on after a round."""
    file = run / LINES
    if file.exists():
        kept = (
            raw for raw in file.read_bytes().splitlines(keepends=True) if json.loads(raw)["round"] <= done
        )
        write_synced(file, b"".join(kept))


def check(result: Audit, section: Pbft) -> dict[str, Any]:
    """Adds to an audit what is wrong with the agreements: that each head behind the first has the commits of
    a quorum, and each accusation two signed proposals.

    Args:
        result: of the ledger's lines, without problems so far.
        section: of the scenario.

    Returns:
        How many rounds were agreed on, by how many of how many, and who proposed two heads in which round.
    """
    quorum = Group(section.validators).quorum
    heads = [entry for entry in result.entries if isinstance(entry, SignedHead) and entry.head.round]
    file = result.path / LINES
    raw = reader.inside(result.path, file).read_bytes().splitlines() if file.is_file() else []
    liars = []
    for number, head in enumerate(heads, 1):
        where = f"{LINES}:{number}"
        entry = parsed(raw[number - 1], AgreedHead) if number <= len(raw) else None
        if entry is None or (entry.round, entry.head) != (head.head.round, digest(line(head))):
            got = "no agreement, or one that was changed" if entry is None else f"one on {entry.head[:12]}..."
            result.add(
                where, got, f"one on the head of round {head.head.round}, {digest(line(head))[:12]}..."
            )
            return {}
        signed = sum(_has_signed(result, entry, edge) for edge in range(section.validators))
        if signed < quorum or len(entry.commits) != signed:
            got = f"{signed} of {len(entry.commits)} commits that their edge servers signed"
            result.add(where, got, f"at least {quorum}, and no others")
        for pair in entry.equivocated:
            if not _is_proof(result, pair):
                got = f"an accusation of {edge_name(pair[0].sender)} without proof"
                result.add(where, got, "two proposals for one view that it has signed")
            liars.append(f"{edge_name(pair[0].sender)} in round {entry.round}")
    if len(raw) > len(heads):
        result.add(f"{LINES}:{len(heads) + 1}", "an agreement without a head", "one a round")
    return {"rounds": len(heads), "edges": section.validators, "quorum": quorum, "equivocated": liars}


def _has_signed(result: Audit, entry: AgreedHead, edge: int) -> bool:
    signature = entry.commits.get(edge_name(edge))
    if signature is None:
        return False
    return result.keys.verifies(edge_name(edge), signature, entry.commit(edge, signature).signed_bytes)


def _is_proof(result: Audit, pair: list[Proposal]) -> bool:
    digests = {p.digest for p in pair}
    places = {(p.round, p.view, p.sender) for p in pair}
    signed = (result.keys.verifies(owner(p.message), p.signature, p.message.signed_bytes) for p in pair)
    return len(places) == 1 and len(digests) == len(pair) == 2 and all(signed)
