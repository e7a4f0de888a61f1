"""The Merkle tree of RFC 9162, Sec. 2.1: its root, inclusion and consistency proofs, and their verification.

A leaf is given as bytes, a node is a SHA-256 hash of 32 bytes. Leaves and inner nodes are hashed with a first
byte of their own, so that no leaf can pass for a node.
"""

import hashlib
from collections.abc import Sequence

EMPTY = hashlib.sha256().digest()  # the root of no leaves


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def root(hashes: Sequence[bytes]) -> bytes:
    """The root (MTH, Sec. 2.1.1) over the hashes of leaves, in their order."""
    if not hashes:
        return EMPTY
    level = list(hashes)
    while len(level) > 1:  # a last node without a sibling goes up as it is
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [node_hash(left, right) for left, right in pairs] + level[len(level) & ~1 :]
    return level[0]


def inclusion_proof(index: int, hashes: Sequence[bytes]) -> list[bytes]:
    """The nodes (PATH, Sec. 2.1.3.1) that lead from a leaf to the root, the lowest first.

    Args:
        index: of the leaf, from 0.
        hashes: of all leaves.

    Raises:
        ValueError: for an index that is no leaf's.
    """
    if not 0 <= index < len(hashes):
        raise ValueError(f"got leaf {index} of a tree of {len(hashes)}, expected one of its leaves")
    if len(hashes) == 1:
        return []
    middle = _split(len(hashes))
    if index < middle:
        return [*inclusion_proof(index, hashes[:middle]), root(hashes[middle:])]
    return [*inclusion_proof(index - middle, hashes[middle:]), root(hashes[:middle])]


def consistency_proof(size: int, hashes: Sequence[bytes]) -> list[bytes]:
    """The nodes (PROOF, Sec. 2.1.4.1) that show that the first `size` leaves are a tree's beginning.

    Args:
        size: of the earlier tree, from 1 to the tree's own.
        hashes: of all leaves.

    Raises:
        ValueError: for another size.
    """
    if not 0 < size <= len(hashes):
        raise ValueError(f"got {size} leaves of a tree of {len(hashes)}, expected 1 to {len(hashes)}")
    return _subproof(size, hashes, True)


def verifies_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> bool:
    """Whether a leaf is in a tree (Sec. 2.1.3.2).

    Args:
        leaf: its hash.
        index: of the leaf, from 0.
        size: leaves of the tree.
        proof: as `inclusion_proof` gives it.
        expected: the tree's root.
    """
    if not 0 <= index < size:
        return False
    at = index
    last = size - 1
    result = leaf
    for node in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            result = node_hash(node, result)
            at, last = _without_low_zeros(at, last)
        else:
            result = node_hash(result, node)
        at >>= 1
        last >>= 1
    return last == 0 and result == expected


def verifies_consistency(
    first_size: int, second_size: int, proof: Sequence[bytes], first_root: bytes, second_root: bytes
) -> bool:
    """Whether a tree is the beginning of another one (Sec. 2.1.4.2).

    Args:
        first_size: leaves of the earlier tree, at least 1.
        second_size: leaves of the later one.
        proof: as `consistency_proof` gives it.
        first_root: the earlier tree's.
        second_root: the later one's.
    """
    if not 0 < first_size <= second_size:
        return False
    if first_size == second_size:
        return not proof and first_root == second_root
    path = list(proof)
    if first_size & (first_size - 1) == 0:  # a whole tree is a node of the later one
        path.insert(0, first_root)
    if not path:
        return False
    at = first_size - 1
    last = second_size - 1
    while at & 1:
        at >>= 1
        last >>= 1
    first = second = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            first = node_hash(node, first)
            second = node_hash(node, second)
            at, last = _without_low_zeros(at, last)
        else:
            second = node_hash(second, node)
        at >>= 1
        last >>= 1
    return last == 0 and first == first_root and second == second_root


def _split(size: int) -> int:
    """The largest power of two below a size of at least 2."""
    return 1 << (size - 1).bit_length() - 1


def _subproof(size: int, hashes: Sequence[bytes], is_whole: bool) -> list[bytes]:
    """SUBPROOF of Sec. 2.1.4.1: `is_whole` where the first tree's root is known to the verifier."""
    if size == len(hashes):
        return [] if is_whole else [root(hashes)]
    middle = _split(len(hashes))
    if size <= middle:
        return [*_subproof(size, hashes[:middle], is_whole), root(hashes[middle:])]
    return [*_subproof(size - middle, hashes[middle:], False), root(hashes[:middle])]


def _without_low_zeros(at: int, last: int) -> tuple[int, int]:
    """Both numbers shifted until the first has its lowest bit, or is 0: nodes that went up as they are."""
    while at and not at & 1:
        at >>= 1
        last >>= 1
    return at, last
