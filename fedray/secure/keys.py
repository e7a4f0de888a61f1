"""Keys: X25519 pairs, what two of them agree on, and what is derived of a secret by HKDF (RFC 7748, RFC
5869).

In this simulation a client's secrets follow from the scenario's seed, so that a run gives the same bits again
on any number of actors. Whoever knows the seed therefore knows every mask: a real deployment draws them from
its system.
"""

from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KEY_BYTES = 32


def derive(secret: bytes, purpose: str, nbytes: int = KEY_BYTES) -> bytes:
    """So many bytes of a secret, by HKDF with SHA-256; other ones for each purpose."""
    return HKDF(algorithm=SHA256(), length=nbytes, salt=None, info=f"fedray {purpose}".encode()).derive(
        secret
    )


def drawn(seed: int, round_number: int, client: int, purpose: str, nbytes: int = KEY_BYTES) -> bytes:
    """A client's own secret bytes, which no other (seed, round, client, purpose) shares.

    Args:
        seed: the scenario's.
        round_number: from 1.
        client: by number.
        purpose: what they are for.
        nbytes: how many.
    """
    return derive(f"{seed}".encode(), f"{round_number}/{client}/{purpose}", nbytes)


@lru_cache(maxsize=4096)
def public_key(private: bytes) -> bytes:
    """The public key [32] of a private one [32]."""
    key = X25519PrivateKey.from_private_bytes(private).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def agree(private: bytes, public: bytes, purpose: str) -> bytes:
    """The secret [32] that the owner of a private key shares with the owner of a public one: the same for
    both (Diffie-Hellman over Curve25519, then HKDF)."""
    shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    return derive(shared, purpose)
