"""The Merkle tree against the vectors of Certificate Transparency's reference implementation; pymerkle 7.0.0
agreed on the roots in a trial."""

import pytest

from fedray.ledger import tree

LEAVES = [b"", b"\0", b"\x10", b" !", b"01", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"]
ROOTS = "e3b0c442 6e340b9c fac54203 aeb6bcfe d37ee418 4e3bbb1f 76e67dad ddb89be4 5dc9da79"
HASHES = [tree.leaf_hash(leaf) for leaf in LEAVES]


def short(nodes):
    return [node.hex()[:8] for node in nodes]


def many(n):
    return [tree.leaf_hash(str(i).encode()) for i in range(n)]


def test_roots_of_up_to_eight_leaves_are_the_published_ones():
    assert short(tree.root(HASHES[:n]) for n in range(9)) == ROOTS.split()


@pytest.mark.parametrize(
    ("index", "expected"), [(0, "96a296d2 5f083f0a 6b47aaf2"), (5, "bc1a0643 ca854ea1 d37ee418")]
)
def test_inclusion_proofs_are_the_published_ones(index, expected):
    assert short(tree.inclusion_proof(index, HASHES)) == expected.split()


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(6, 8, "0ebc5d34 ca854ea1 d37ee418"), (2, 5, "5f083f0a bc1a0643")]
)
def test_consistency_proofs_are_the_published_ones(first, second, expected):
    assert short(tree.consistency_proof(first, HASHES[:second])) == expected.split()


def test_every_leaf_of_every_size_up_to_40_is_included_and_a_forged_one_never():
    for n in range(1, 41):
        hashes = many(n)
        whole = tree.root(hashes)
        for i, leaf in enumerate(hashes):
            proof = tree.inclusion_proof(i, hashes)
            assert tree.verifies_inclusion(leaf, i, n, proof, whole)
            assert not tree.verifies_inclusion(tree.leaf_hash(b"forged"), i, n, proof, whole)
            assert not tree.verifies_inclusion(leaf, i + 1, n, proof, whole)
            assert not tree.verifies_inclusion(leaf, i, n, [*proof, leaf], whole)


def test_every_size_up_to_40_is_consistent_with_each_later_one_and_a_forged_history_never():
    for n in range(1, 41):
        hashes = many(n)
        whole = tree.root(hashes)
        forged = tree.root([tree.leaf_hash(b"forged"), *hashes[1:]])
        for m in range(1, n + 1):
            before = tree.root(hashes[:m])
            proof = tree.consistency_proof(m, hashes)
            assert tree.verifies_consistency(m, n, proof, before, whole)
            assert not tree.verifies_consistency(m, n, proof, before, forged)
            assert not tree.verifies_consistency(m, n, [*proof, whole], before, whole)


def test_what_is_no_leaf_of_a_tree_has_no_proof():
    with pytest.raises(ValueError, match="leaf 3 of a tree of 3"):
        tree.inclusion_proof(3, many(3))
    with pytest.raises(ValueError, match="0 leaves of a tree of 3"):
        tree.consistency_proof(0, many(3))
