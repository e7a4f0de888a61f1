"""Every random draw, keyed by (seed, round, client, purpose).

No generator lives longer than one purpose, so nothing about randomness is state: a resumed run, a retried
client, one actor or ten draw the same numbers.
"""

import hashlib
from typing import Any

import numpy as np

SERVER_ID = -1  # the server's place where a client's number stands
SERVER = SERVER_ID


def key(seed: int, round_number: int, client: int, purpose: str) -> int:
    """63 bits that no other (seed, round, client, purpose) shares, for torch and for libraries that take one
    number.

    Args:
        seed: the run's.
        round_number: from 1; 0 for what is drawn once a run.
        client: by number, or SERVER.
        purpose: what is drawn.
    """
    digest = hashlib.sha256(f"{seed}/{round_number}/{client}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, round_number: int, client: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(key(seed, round_number, client, purpose))


def uniforms(seed: int, round_number: int, purpose: str, *ids: Any) -> np.ndarray:
    """A draw in (0, 1) for each element of the broadcast `ids` (client, peer, block), whoever else is asked
    for: what `generator` would give one by one, for hundred thousands at once. SplitMix64's finaliser
    (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        x = np.array(key(seed, round_number, SERVER, purpose), np.uint64)
        for one in ids:
            x = (x + np.asarray(one).astype(np.int64).astype(np.uint64) + np.uint64(1)) * np.uint64(
                0x9E3779B97F4A7C15
            )
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
    drawn: np.ndarray = ((x >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return drawn


def normals(seed: int, round_number: int, purpose: str, *ids: Any) -> np.ndarray:
    from scipy.special import ndtri

    drawn: np.ndarray = ndtri(uniforms(seed, round_number, purpose, *ids))
    return drawn
