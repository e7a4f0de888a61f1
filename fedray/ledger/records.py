"""What stands in a ledger: leaves and heads, as canonical JSON; and the names of its files.

A line of `ledger.jsonl` is `{"leaf": {...}, "signature": hex}` or `{"head": {...}, "signature": hex}`. The
signature is Ed25519's over the canonical JSON of the object with its name: `{"leaf": {...}}`. What the tree
holds of a leaf is its whole line, with the signature.
"""

import hashlib
import json
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from fedray.runs.fingerprint import is_free
from fedray.scenario.base import file_paths
from fedray.scenario.scenario import Scenario
from fedray.scenario.tree import flat

LINES = "ledger.jsonl"
KEYS = "ledger-keys.json"
KEPT = "ledger"  # the folder of the updates that are kept
SEAL = "seal.json"  # in a checkpoint: the server's signature over its files

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Whole = Annotated[int, Field(ge=0)]


class Record(BaseModel):
    """An object in a ledger: no other keys, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Leaf(Record):
    """What a client says of one local update."""

    run: Sha256  # see `run_id`
    round: Whole
    client: Whole
    base: Sha256  # of the buffer that the client got
    # `update`: a difference [sent] fp32, as it is added at the server; `model`: the buffer that a client of a
    # relay handed on
    sends: Literal["update", "model"]
    update: Sha256 | None  # of its bytes; None of a client that failed
    weight: Whole
    bytes: Whole  # of what it sent, on the air
    outcome: Literal["done", "failed"]


class Head(Record):
    """What the server says of the tree after a round; of round 0 before anything has trained."""

    run: Sha256
    round: Whole
    size: Whole  # leaves of the tree
    root: Sha256
    previous: Sha256 | None  # of the head before, as a line
    keys: Sha256  # of the file of public keys
    buffer: Sha256  # of the global buffer, which is the next round's base
    weights: Sha256  # `weights_sha256` of the checkpoint
    clients: Whole  # that can train at all


class SignedLeaf(Record):
    leaf: Leaf
    signature: Signature


class SignedHead(Record):
    head: Head
    signature: Signature


class SealedFiles(Record):
    """What the server says of a checkpoint."""

    head: Sha256  # of the head after its round, as a line
    files: dict[str, Sha256]  # every other file of the checkpoint


class Seal(Record):
    seal: SealedFiles
    signature: Signature


Signed = TypeVar("Signed", bound=Record)


def canonical(value: Any) -> bytes:
    """JSON with sorted keys, without spaces, in ASCII: the same bytes of the same object (as RFC 8785 has it
    for objects of text and whole numbers)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def digest(data: Any) -> str:
    """The sha256 of bytes, or of an array's."""
    return hashlib.sha256(data).hexdigest()


def signed_bytes(name: str, record: Record) -> bytes:
    """What is signed of a record: with its name, so that no head passes for a leaf."""
    return canonical({name: record.model_dump()})


def line(signed: Record) -> bytes:
    """A signed record as it stands in a file, without the line's end."""
    return canonical(signed.model_dump())


def parsed(raw: bytes, kind: type[Signed]) -> Signed | None:
    """The record that bytes are; none where they are not to the byte its canonical JSON."""
    try:
        record = kind.model_validate(json.loads(raw))
    except (ValueError, RecursionError):  # no JSON, or of another form
        return None
    return record if line(record) == raw else None


def run_id(scenario: Scenario) -> str:
    """What names a run: the sha256 of the scenario's keys that reach a weight, without names, without where
    files lie and how many rounds there are. The same on every machine, and when a run goes on."""
    files = {
        re.sub(r"\.\d+$", "", f"{key}.{name}")  # of a list of paths
        for key, section in scenario.sections()
        for name, _ in file_paths(section)
    }
    values = dict(flat(scenario.model_dump(mode="json")))
    return digest(canonical({k: v for k, v in values.items() if not is_free(k) and k not in files}))


def kept_file(round_number: int, client: int) -> str:
    """Where a client's update of a round is kept, below the run folder."""
    return f"{KEPT}/round-{round_number:04d}/client-{client}.safetensors"
