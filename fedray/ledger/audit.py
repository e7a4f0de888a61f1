"""Checks a ledger: each line's form and signature, the chain of heads, the tree, checkpoints and kept
updates. Whatever is not as the run wrote it is named by file, line, round and client."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedray.ledger import records, tree
from fedray.ledger.keys import SERVER, PublicKeys, client_name
from fedray.ledger.log import kept_rounds
from fedray.ledger.records import Head, Leaf, Seal, SignedHead, SignedLeaf, digest, line, signed_bytes
from fedray.runs import reader
from fedray.scenario import ScenarioError

CHECKPOINT = re.compile(r"round-\d{4,9}")


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
    for check in (_check_keys, partial(_check_signatures, run_id=run_id), _check_heads, _check_bases):
        if not result.problems:  # what follows would be wrong everywhere
            check(result)
    return result


def audit(path: Path, run_id: str) -> Audit:
    """Everything but the adding up of kept updates. Takes and raises what `chain` does."""
    reader.refuse_links_within(path, path / "checkpoints")
    result = chain(path, run_id)
    if not result.problems:
        for check in (_check_checkpoints, _check_kept, _check_result):
            check(result)
    return result


def read(path: Path) -> Audit:
    """The lines of a ledger and its keys, each of the form that a run writes. A last line without an end is
    not there yet."""
    result = Audit(path)
    with (path / records.LINES).open("rb") as f:
        for number, raw in enumerate(f, 1):
            if not raw.endswith(b"\n"):
                break
            entry = _entry(raw[:-1])
            if entry is None:
                result.add(f"{records.LINES}:{number}", "a line that was changed", "a leaf or a head")
            else:
                result.entries.append(entry)
    return result


def _entry(raw: bytes) -> SignedLeaf | SignedHead | None:
    """A line's record; none where it is not to the byte as a run writes it."""
    for kind in (SignedLeaf, SignedHead):
        entry = _record(raw, kind)
        if entry is not None:
            return entry  # type: ignore[no-any-return]
    return None


def _record(raw: bytes, kind: Any) -> Any:
    """A record of bytes; none where they are not its canonical JSON."""
    try:
        record = kind.model_validate(json.loads(raw))
    except (ValueError, RecursionError, ValidationError):
        return None
    return record if line(record) == raw else None


def _check_keys(result: Audit) -> None:
    """That the file of public keys is the one that the first head names."""
    file = result.path / records.KEYS
    if not result.heads:
        result.add(records.LINES, "no head", "a head of round 0 at least")
        return
    try:
        raw = reader.inside(result.path, file).read_bytes()
    except OSError as e:
        result.add(records.KEYS, f"a file that cannot be read ({e.strerror})", "the public keys of the run")
        return
    if digest(raw) != result.heads[0].keys:
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
            owner, name = client_name(entry.leaf.client), "leaf"
            what = f"the leaf of client {entry.leaf.client} in round {record.round}"
        else:
            record = entry.head
            owner, name = SERVER, "head"
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


def _check_checkpoints(result: Audit) -> None:
    """That every file of a checkpoint is as the server sealed it, and its seal names the head of its round."""
    heads = {f"round-{e.head.round:04d}": e for e in result.entries if isinstance(e, SignedHead)}
    for folder in sorted((result.path / "checkpoints").glob("round-*")):
        if not CHECKPOINT.fullmatch(folder.name) or not folder.is_dir():
            continue
        place = f"checkpoints/{folder.name}"
        file = folder / records.SEAL
        seal = _record(file.read_bytes().removesuffix(b"\n"), Seal) if file.is_file() else None
        signed = seal and result.keys.verifies(SERVER, seal.signature, signed_bytes("seal", seal.seal))
        if not signed or (folder / records.SEAL).read_bytes() != line(seal) + b"\n":
            result.add(f"{place}/{records.SEAL}", "no seal, or one that was changed", "the server's seal")
            continue
        head = heads.get(folder.name)
        if head is None or seal.seal.head != digest(line(head)):
            result.add(f"{place}/{records.SEAL}", "a seal with another head", f"the head of {folder.name}")
        files = {f.name: digest(f.read_bytes()) for f in folder.iterdir() if f.name != records.SEAL}
        for name in sorted(files.keys() | seal.seal.files.keys()):
            if files.get(name) != seal.seal.files.get(name):
                got = "no file" if name not in files else "a file that was changed"
                expected = f"sha256 {seal.seal.files.get(name, 'of none')[:12]}..."
                result.add(f"{place}/{name}", got, expected)
        result.seals += 1


def _check_kept(result: Audit) -> None:
    """That every update that is kept is the one of its leaf."""
    if not (result.path / records.KEPT).is_dir():
        return
    sent = {records.kept_file(leaf.round, leaf.client): leaf for leaf in result.leaves if leaf.update}
    for folder in kept_rounds(result.path):
        for file in sorted(folder.iterdir()):
            if str(file.relative_to(result.path)) not in sent:
                result.add(str(file.relative_to(result.path)), "a file without a leaf", "none")
    for name, leaf in sent.items():
        update = kept_update(result.path, name)
        if update is None or digest(update) != leaf.update:
            got = "no update" if not (result.path / name).is_file() else "an update that was changed"
            expected = f"that of client {leaf.client} in round {leaf.round}, sha256 {leaf.update}"
            result.add(name, got, expected)
        else:
            result.kept += 1


def kept_update(path: Path, name: str) -> bytes | None:
    """The bytes of an update that is kept; none where its file is not to the byte as a run writes it."""
    from safetensors.numpy import load, save

    try:
        raw = reader.inside(path, path / name).read_bytes()
        update = load(raw)["update"]
    except Exception:  # whatever a library says of a damaged file
        return None
    return update.tobytes() if save({"update": update}) == raw else None


def _check_result(result: Audit) -> None:
    """That result.json names the weights of the last head."""
    document: dict[str, Any] | None = reader.document(result.path, "result.json")
    if document is None or document.get("status") != "done":
        return
    last = result.heads[-1]
    if (document.get("rounds"), document.get("weights_sha256")) != (last.round, last.weights):
        got = f"round {document.get('rounds')} with weights {str(document.get('weights_sha256'))[:12]}..."
        result.add("result.json", got, f"round {last.round} with {last.weights[:12]}..., as the head says")
