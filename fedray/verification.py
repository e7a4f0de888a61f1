"""`fedray verify`: whether a run folder still holds what its clients and its server have signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fedray.ledger import records
from fedray.ledger.audit import audit, kept_update
from fedray.ledger.chain import Audit, refuse_none
from fedray.ledger.consensus import check
from fedray.ledger.proof import inclusion
from fedray.runs import reader
from fedray.scenario import Loaded, ScenarioError


def verify(path: Path, round_number: int | None = None, client: int | None = None) -> dict[str, Any]:
    """What `fedray verify --json` prints: `problems` (empty where all is as it was signed), what was checked,
    and the proof of one update where one is named.

    Args:
        path: the run folder.
        round_number: with `client`, of the update whose proof is given.
        client: by number.

    Raises:
        ScenarioError: for a folder without a ledger, or a round and a client that it has no update of.
    """
    loaded = reader.scenario(path)
    if loaded.scenario.sweep is not None:
        raise ScenarioError([f"{path}: got a sweep, expected a run: {path}/NAME"])
    refuse_none(path)
    section = loaded.scenario.ledger
    keeps = section is not None and section.keep == "updates"
    result = audit(path, records.run_id(loaded.scenario), keeps)
    agreed = None
    if not result.problems and section is not None and section.consensus is not None:
        agreed = check(result, section.consensus)
    added = 0
    if not result.problems and keeps:
        added = _add_again(result, loaded)
    verified: dict[str, Any] = {
        "run": str(path),
        "problems": result.problems,
        "rounds": result.heads[-1].round if result.heads else 0,
        "leaves": len(result.leaves),
        "checkpoints": result.seals,
        "updates": result.kept,
        "rounds_added_again": added,
        "agreed": agreed,
        "keys": result.keys.source,
        "head": result.heads[-1].model_dump() if result.heads else None,
    }
    if round_number is not None and client is not None and not result.problems:
        verified["inclusion"] = inclusion(result, round_number, client)
    return verified


def lines(verified: dict[str, Any]) -> list[str]:
    """For a person, what `verify` found of a ledger without problems."""
    head = verified["head"]
    rows = [
        f"{verified['run']}: as its clients and its server signed it",
        f"{verified['leaves']} updates in {verified['rounds']} rounds: signatures, heads, consistency",
        f"{verified['checkpoints']} checkpoints: every file",
    ]
    if verified["updates"]:
        added = f"added up again, the same weights to the bit after each of {verified['rounds_added_again']}"
        rows.append(f"{verified['updates']} kept updates: {added} rounds")
    rows.append(f"head of round {head['round']}: {head['size']} leaves, root {head['root']}")
    if agreed := verified["agreed"]:
        signed = f"{agreed['quorum']} signatures at least of {agreed['edges']} edge servers"
        rows.append(f"{agreed['rounds']} heads agreed on: {signed}")
        rows += [f"two heads proposed by {liar}, as its signatures show" for liar in agreed["equivocated"]]
    if verified["keys"] == "seed":
        rows.append("keys that follow from the seed: whoever has the scenario could have signed all of it")
    proof = verified.get("inclusion")
    if proof is not None:
        rows += ["", f"leaf {proof['index']} of {proof['size']}: {json.dumps(proof['leaf'], sort_keys=True)}"]
        rows += [f"leaf hash {proof['leaf_hash']}", *(f"  with      {node}" for node in proof["proof"])]
        rows.append(f"gives     {proof['root']}, the root of the last head")
    return rows


def _add_again(result: Audit, loaded: Loaded) -> int:
    """Adds up the kept updates of every round, and compares with the heads to the bit; how many rounds came
    out the same."""
    from fedray.executors.replay import Replay

    replay = Replay(loaded.scenario, loaded.folder)
    for head in result.heads:
        if head.round:
            leaves = [leaf for leaf in result.leaves if leaf.round == head.round]
            updates = {
                leaf.client: _update(result.path, head.round, leaf.client) for leaf in leaves if leaf.update
            }
            replay.add_round(head.round, leaves, updates, head.clients)
        if replay.sha256 != head.buffer:
            what = "its base model, or its code" if head.round == 0 else "the sum of the kept updates"
            got = f"{what} gives a global model {replay.sha256[:12]}... after round {head.round}"
            result.add(records.KEPT, got, f"{head.buffer[:12]}..., as the head says")
            return head.round - 1
    return result.heads[-1].round


def _update(path: Path, round_number: int, client: int) -> np.ndarray:
    raw = kept_update(path, records.kept_file(round_number, client))
    assert raw is not None, "checked before"
    return np.frombuffer(raw, np.uint8).copy()
