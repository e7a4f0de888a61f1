"""Every random draw, keyed by (seed, round, client, purpose).

No generator lives longer than one purpose, so nothing about randomness is state: a resumed run, a retried client, one
actor or ten draw the same numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np

SERVER = -1  # the server's place where a client's number stands


def key(seed: int, round: int, client: int, purpose: str) -> int:
    """63 bits that no other (seed, round, client, purpose) shares, for torch and for libraries that take one number."""
    digest = hashlib.sha256(f"{seed}/{round}/{client}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, round: int, client: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(key(seed, round, client, purpose))
