"""Reads a ledger and checks its lines: form, signatures, the chain of heads, the tree. Whatever is not as the
run wrote it is named by file, line, round and client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fedray.ledger import records, tree
from fedray.ledger.keys import SERVER, PublicKeys, client_name
from fedray.ledger.records import Head, Leaf, SignedHead, SignedLeaf, digest, line, signed_bytes
from fedray.runs import reader
from fedray.scenario import ScenarioError


@dataclass
class Audit:
    """A ledger that has been read, and everything that was found wrong with it.

    Args:
        path: the run folder.
    """

    path: Path
    problems: list[str] = field(default_factory=list)
    entries: list[SignedLeaf | SignedHead] = field(default_factory=list)
    keys: PublicKeys = field(default_factory=lambda: PublicKeys({}))
    seals: int = 0
    kept: int = 0  # files of updates

    @property
    def leaves(self) -> list[Leaf]:
        return [entry.leaf for entry in self.entries if isinstance(entry, SignedLeaf)]

    @property
    def heads(self) -> list[Head]:
        return [entry.head for entry in self.entries if isinstance(entry, SignedHead)]

    @property
    def hashes(self) -> list[bytes]:
        """Of the tree's leaves."""
        return [tree.leaf_hash(line(entry)) for entry in self.entries if isinstance(entry, SignedLeaf)]

    def add(self, where: str, got: str, expected: str) -> None:
        self.problems.append(f"{self.path / where}: got {got}, expected {expected}")


def refuse_none(path: Path) -> None:
    """Raises ScenarioError for a run folder without a ledger."""
    reader.inside(path, path / records.LINES)
    if not (path / records.LINES).is_file():
        expected = "one of a scenario with a ledger (ledger: {})"
        raise ScenarioError([f"{path}: got a run without {records.LINES}, expected {expected}"])


def chain(path: Path, run_id: str) -> Audit:
    """The lines of a ledger, their signatures, and the chain of heads.

    Args:
        path: the run folder.
        run_id: what its scenario says that the run is.

    Raises:
        ScenarioError: for a folder without a ledger, or with links out of it.
    """
    refuse_none(path)
    reader.refuse_links_within(path, path / records.KEPT)
    result = read(path)
    checks = (_check_keys, partial(_check_signatures, run_id=run_id), _check_heads, _check_bases)
    for check in checks:
        if not result.problems:  # what follows would be wrong everywhere
            check(result)
    return result


def read(path: Path) -> Audit:
    """The lines of a ledger, each of the form that a run writes. Of a run that is not done, what stands
    behind the last head is not there yet: a round was being written when it broke off."""
    result = Audit(path)
    done = (path / "result.json").exists()
    with (path / records.LINES).open("rb") as f:
        for number, raw in enumerate(f, 1):
            entry = _entry(raw.removesuffix(b"\n"))
            if raw.endswith(b"\n") and entry is not None:
                result.entries.append(entry)
            elif raw.endswith(b"\n") or done:
                result.add(f"{records.LINES}:{number}", "a line that was changed", "a leaf or a head")
    while not done and result.entries and isinstance(result.entries[-1], SignedLeaf):
        result.entries.pop()
    return result


def _entry(raw: bytes) -> SignedLeaf | SignedHead | None:
    """A line's record; none where it is not to the byte as a run writes it."""
    return records.parsed(raw, SignedLeaf) or records.parsed(raw, SignedHead)


def _check_keys(result: Audit) -> None:
    """That the file of public keys is one that the heads name."""
    file = result.path / records.KEYS
    if not result.heads:
        result.add(records.LINES, "no head", "a head of round 0 at least")
        return
    try:
        raw = reader.inside(result.path, file).read_bytes()
    except OSError as e:
        result.add(records.KEYS, f"a file that cannot be read ({e.strerror})", "the public keys of the run")
        return
    if digest(raw) not in {head.keys for head in result.heads}:  # one of which may be a changed one
        result.add(records.KEYS, "keys that were changed", f"sha256 {result.heads[0].keys[:12]}...")
        return
    document = json.loads(raw)
    result.keys = PublicKeys(document["keys"], document["source"])


def _check_signatures(result: Audit, run_id: str) -> None:
    """Of every line, by its own owner's key; and that it is this run's."""
    for number, entry in enumerate(result.entries, 1):
        record: Leaf | Head
        if isinstance(entry, SignedLeaf):
            record = entry.leaf
            owner = client_name(entry.leaf.client)
            name = "leaf"
            what = f"the leaf of client {entry.leaf.client} in round {record.round}"
        else:
            record = entry.head
            owner = SERVER
            name = "head"
            what = f"the head of round {record.round}"
        where = f"{records.LINES}:{number}"
        if not result.keys.verifies(owner, entry.signature, signed_bytes(name, record)):
            result.add(where, f"{what} that was changed", f"what {owner} has signed")
        elif record.run != run_id:
            got = f"{what} of run {record.run[:12]}..."
            result.add(where, got, f"run {run_id[:12]}..., which the scenario in {reader.SCENARIO} is")


def _check_heads(result: Audit) -> None:
    """That each head names the one before, follows it by one round, has the root of the leaves so far, and
    that its tree begins with the one before."""
    hashes: list[bytes] = []
    before: SignedHead | None = None
    for number, entry in enumerate(result.entries, 1):
        where = f"{records.LINES}:{number}"
        expected_round = 0 if before is None else before.head.round + 1
        if isinstance(entry, SignedLeaf):
            hashes.append(tree.leaf_hash(line(entry)))
            if entry.leaf.round != expected_round:
                result.add(where, f"a leaf of round {entry.leaf.round}", f"one of round {expected_round}")
            continue
        head = entry.head
        root = tree.root(hashes)
        if head.round != expected_round:
            result.add(where, f"a head of round {head.round}", f"the head of round {expected_round}")
        if head.previous != (None if before is None else digest(line(before))):
            result.add(where, f"a head of round {head.round} after another one", "the one that it names")
        if (head.size, head.root) != (len(hashes), root.hex()):
            got = f"{len(hashes)} leaves of root {root.hex()[:12]}..."
            result.add(where, got, f"{head.size} of root {head.root[:12]}..., as head {head.round} says")
        elif before is not None and before.head.size and not _is_consistent(before.head, head, hashes):
            result.add(where, f"a tree that does not begin with that of round {before.head.round}", "one")
        before = entry
    if result.entries and isinstance(result.entries[-1], SignedLeaf):
        result.add(records.LINES, f"leaves behind the head of round {result.heads[-1].round}", "their head")


def _is_consistent(first: Head, second: Head, hashes: list[bytes]) -> bool:
    proof = tree.consistency_proof(first.size, hashes)
    roots = (bytes.fromhex(head.root) for head in (first, second))
    return tree.verifies_consistency(first.size, second.size, proof, *roots)


def _check_bases(result: Audit) -> None:
    """That each client started from the global buffer of the head before, or, in a relay, from what another
    client of the round handed on."""
    starts: set[str] = set()
    for number, entry in enumerate(result.entries, 1):
        if isinstance(entry, SignedHead):
            starts = {entry.head.buffer}
            continue
        leaf = entry.leaf
        if leaf.base not in starts:
            got = f"an update of client {leaf.client} in round {leaf.round} to {leaf.base[:12]}..."
            result.add(f"{records.LINES}:{number}", got, "one to the global model of the head before")
        if leaf.sends == "model" and leaf.update is not None:
            starts.add(leaf.update)
