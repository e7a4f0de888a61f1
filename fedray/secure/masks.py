"""Masks: pseudo-random integers modulo 2^64 or 2^32, and updates as such integers."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

CHUNK = 1 << 16  # numbers at a time, so that a mask stays in the processor's cache
WORDS: dict[int, type[np.unsignedinteger[Any]]] = {64: np.uint64, 32: np.uint32}  # by bits of a number
SIGNED: dict[int, type[np.signedinteger[Any]]] = {64: np.int64, 32: np.int32}


def add_mask(total: np.ndarray, seed: bytes, sign: int) -> None:
    """Adds the mask of a seed to integers [n] uint64 or uint32 in place, modulo 2^64 or 2^32; with sign -1
    takes it away. The mask is the key stream of AES-256 in counter mode (NIST SP 800-38A, Sec. 6.5)."""
    assert total.dtype.kind == "u"
    stream = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor()
    zeros = bytes(CHUNK * total.itemsize)
    add = np.add if sign > 0 else np.subtract
    for start in range(0, len(total), CHUNK):
        part = total[start : start + CHUNK]
        mask = np.frombuffer(stream.update(zeros[: part.nbytes]), dtype=total.dtype.newbyteorder("<"))
        add(part, mask, out=part)


def as_integers(values: np.ndarray, weight: int, grid: float, bits: int) -> np.ndarray:
    """Weighted numbers as whole grid steps modulo 2^bits, uint64 or uint32.

    Args:
        values: [n] float64, whole multiples of the grid.
        weight: of the update; weight times values is below 2^53 grid steps.
        grid: a power of two.
        bits: 64 or 32.
    """
    return (values * (weight / grid)).astype(SIGNED[bits]).view(WORDS[bits])


def as_numbers(total: np.ndarray, grid: float) -> np.ndarray:
    """What integers of `as_integers` stand for: float64 [n], exact below 2^53 grid steps."""
    return total.view(SIGNED[8 * total.itemsize]).astype(np.float64) * grid


def grid_of(norm: float, value_bits: int) -> float:
    """The grid on which no number of an update of this Euclidean norm has more bits, its sign included: a
    power of two."""
    return float(2.0 ** (math.ceil(math.log2(norm)) - (value_bits - 1)))


def chunks(numel: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, numel)) for start in range(0, numel, CHUNK))
