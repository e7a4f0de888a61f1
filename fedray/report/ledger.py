"""What a report says of a run's ledger. It reads, and does not verify."""

from typing import Any

from fedray.ledger import records
from fedray.ledger.pbft import Group
from fedray.report.recorded import Recorded
from fedray.runs import reader

TAIL = 1 << 16  # bytes at the end of the file, in which the last head is


def ledger(run: Recorded) -> dict[str, str] | None:
    """The ledger of a run in words: its last head, who has its keys, and what is kept. None of a run without
    one."""
    section: dict[str, Any] | None = run.scenario.get("ledger")
    head = last_head(run) if section else None
    if section is None or head is None:
        return None
    from_seed = "from the seed, for simulation: whoever has the scenario has them"
    return {
        "last head": f"of round {head.round}, signed by the server",
        "updates in it": f"{head.size:,}, each signed by its client",
        "root": head.root,
        "weights": head.weights,
        **_agreed(section.get("consensus")),
        "kept": "a hash of each update" if section["keep"] == "hashes" else "each update",
        "keys": "from files" if section["keys"] else from_seed,
        "verify": f"fedray verify {run.path}",
    }


def _agreed(consensus: dict[str, Any] | None) -> dict[str, str]:
    """Who agreed on each head; nothing where the server signs alone."""
    if consensus is None:
        return {}
    n = consensus["validators"]
    return {"agreed on by": f"a quorum of {Group(n).quorum} of {n} edge servers, each head"}


def last_head(run: Recorded) -> records.Head | None:
    """The last head that stands whole in a ledger; none where there is none."""
    file = reader.inside(run.path, run.path / records.LINES)
    if not file.is_file():
        return None
    with file.open("rb") as f:
        f.seek(0, 2)
        f.seek(max(0, f.tell() - TAIL))
        tail = f.read().split(b"\n")[:-1]
    heads = (records.parsed(line, records.SignedHead) for line in reversed(tail))
    return next((signed.head for signed in heads if signed is not None), None)
