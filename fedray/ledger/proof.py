"""The proof that one update is in a run's ledger."""

import json
from typing import Any

from fedray.ledger import tree
from fedray.ledger.chain import Audit
from fedray.ledger.records import SignedLeaf, canonical
from fedray.scenario import ScenarioError


def inclusion(result: Audit, number: int, client: int) -> dict[str, Any]:
    """The proof that a client's update of a round is in the tree of the last head: what a person needs to
    check it with that head alone.

    Args:
        result: of an audit without problems.
        number: of the round.
        client: by number.

    Raises:
        ScenarioError: where there is no such leaf.
    """
    leaves = [entry for entry in result.entries if isinstance(entry, SignedLeaf)]
    places = {(entry.leaf.round, entry.leaf.client): index for index, entry in enumerate(leaves)}
    if (number, client) not in places:
        clients = [str(leaf.client) for leaf in result.leaves if leaf.round == number]
        rounds = f"a round from 1 to {result.heads[-1].round}"
        expected = f"client {', '.join(clients)}" if clients else rounds
        raise ScenarioError([f"--round {number} --client {client}: got no update, expected {expected}"])
    index = places[number, client]
    entry = leaves[index]
    hashes = result.hashes
    proof = tree.inclusion_proof(index, hashes)
    head = result.heads[-1]
    root = bytes.fromhex(head.root)
    return {
        "leaf": json.loads(canonical(entry.model_dump())),
        "leaf_hash": hashes[index].hex(),
        "index": index,
        "size": head.size,
        "root": head.root,
        "proof": [node.hex() for node in proof],
        "verified": tree.verifies_inclusion(hashes[index], index, head.size, proof, root),
    }
