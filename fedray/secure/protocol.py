"""The two sides of secure aggregation (Bonawitz et al. 2017, Fig. 4, against an honest but curious server).

A client advertises keys, shares its secrets, masks its numbers, and gives shares for unmasking. The server
passes messages on, adds masked numbers, and takes away the masks: of those that sent numbers their own masks,
of those that vanished what they had in common with the others. It has public keys, encrypted shares, masked
numbers and, at the end, one share a client and holder; never both kinds of shares of one client.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedray.secure.keys import KEY_BYTES, agree, derive, drawn, public_key
from fedray.secure.masks import add_mask
from fedray.secure.shamir import PRIME, SHARE_BYTES, reconstruct, split

NONCE = bytes(12)  # each key encrypts one message
DRAWN_BYTES = 48  # of a coefficient: reduced modulo PRIME it is uniform but for 2^-127


class PublicKeys(NamedTuple):
    """What a client advertises."""

    encryption: bytes  # for shares
    masks: bytes  # for masks in common with its neighbours


class Shares(NamedTuple):
    """One holder's shares of one client's secrets."""

    mask_key: int  # of the private key of its masks, opened where it vanished
    own_seed: int  # of the seed of its own mask, opened where its numbers were added


class TooFewShares(Exception):
    """Fewer holders than the threshold: nothing can be unmasked."""


class Client:
    """A client's secrets in one round, and what it sends.

    Args:
        seed: the scenario's, from which its secrets follow in this simulation.
        round_number: from 1.
        client: by number.
    """

    def __init__(self, seed: int, round_number: int, client: int) -> None:
        self.client = client
        self.encryption_key = drawn(seed, round_number, client, "secure encryption key")
        self.mask_key = drawn(seed, round_number, client, "secure mask key")
        self.own_seed = drawn(seed, round_number, client, "secure own mask")
        self.coefficients = drawn(seed, round_number, client, "secure polynomials")

    def advertise(self) -> PublicKeys:
        """Its public keys."""
        return PublicKeys(public_key(self.encryption_key), public_key(self.mask_key))

    def share(self, neighbours: Sequence[int], threshold: int) -> dict[int, Shares]:
        """The shares of its two secrets for each neighbour and for itself."""
        holders = [place(holder) for holder in (*neighbours, self.client)]
        keys, seeds = (
            split(int.from_bytes(secret, "little"), self._polynomial(name, threshold), holders)
            for name, secret in (("mask key", self.mask_key), ("own seed", self.own_seed))
        )
        return {h: Shares(keys[place(h)], seeds[place(h)]) for h in (*neighbours, self.client)}

    def encrypt(self, shares: Shares, receiver: int, keys: PublicKeys) -> bytes:
        """A neighbour's shares, so that only it can read them: the server passes them on."""
        plain = b"".join(value.to_bytes(SHARE_BYTES, "little") for value in shares)
        return self._cipher(self.client, receiver, keys).encrypt(NONCE, plain, None)

    def decrypt(self, message: bytes, sender: int, keys: PublicKeys) -> Shares:
        """A neighbour's message.

        Raises:
            cryptography.exceptions.InvalidTag: for one that was changed.
        """
        plain = self._cipher(sender, self.client, keys).decrypt(NONCE, message, None)
        parts = (plain[:SHARE_BYTES], plain[SHARE_BYTES:])
        return Shares(*(int.from_bytes(part, "little") for part in parts))

    def mask(self, numbers: np.ndarray, keys: Mapping[int, PublicKeys]) -> None:
        """Masks its numbers [n] uint64 or uint32 in place: with its own mask, and one in common with each
        neighbour, which the one adds and the other takes away.

        Args:
            numbers: as integers (masks.as_integers).
            keys: of the neighbours whose shares it got.
        """
        add_mask(numbers, self.own_seed, 1)
        for neighbour, theirs in keys.items():
            add_mask(numbers, pair_seed(self.mask_key, theirs.masks), sign(self.client, neighbour))

    def open_shares(
        self, held: Mapping[int, Shares], survivors: Collection[int], threshold: int
    ) -> dict[int, int]:
        """One share of each client: of its seed where it survived, of its key where it did not. Once it has
        said of a client which, it does not say the other.

        Args:
            held: by the client that they are of.
            survivors: whose numbers the server says it has added.
            threshold: of holders.

        Raises:
            TooFewShares: where the server says that fewer of these survived than the threshold.
        """
        surviving = sum(owner in survivors for owner in held)
        if surviving < threshold:
            raise TooFewShares(f"{surviving} survivors, expected at least {threshold}")
        return {
            owner: shares.own_seed if owner in survivors else shares.mask_key
            for owner, shares in held.items()
        }

    def _polynomial(self, name: str, threshold: int) -> list[int]:
        """The coefficients behind the secret."""
        stream = np.zeros((threshold - 1) * DRAWN_BYTES // 8, np.uint64)
        add_mask(stream, derive(self.coefficients, name), 1)
        data = stream.tobytes()
        starts = range(0, len(data), DRAWN_BYTES)
        return [int.from_bytes(data[start : start + DRAWN_BYTES], "little") % PRIME for start in starts]

    def _cipher(self, sender: int, receiver: int, keys: PublicKeys) -> AESGCM:
        return AESGCM(agree(self.encryption_key, keys.encryption, f"shares {sender} {receiver}"))


class Server:
    """The server's side of one round.

    Args:
        keys: that clients advertised.
        neighbours: from whom each client that sent numbers had got shares.
        threshold: of shares that give a secret back.
    """

    def __init__(
        self, keys: Mapping[int, PublicKeys], neighbours: Mapping[int, Sequence[int]], threshold: int
    ) -> None:
        self.keys = keys
        self.neighbours = neighbours
        self.threshold = threshold

    def unmask(
        self, total: np.ndarray, survivors: Collection[int], opened: Mapping[int, Mapping[int, int]]
    ) -> None:
        """Takes the masks off a sum of masked numbers [n], in place.

        Args:
            total: of all survivors' numbers.
            survivors: the clients whose numbers it has.
            opened: by holder, the shares that it opened, by the client they are of.

        Raises:
            TooFewShares: for a secret with fewer shares than the threshold; the sum stays as it was.
            ValueError: for shares that give another key than the client had advertised.
        """
        vanished = {n for client in survivors for n in self.neighbours[client]} - set(survivors)
        seeds = {client: self._secret(client, opened) for client in sorted(survivors)}
        keys = {client: self._secret(client, opened) for client in sorted(vanished)}
        for client, key in keys.items():
            if public_key(key) != self.keys[client].masks:
                raise ValueError(f"got shares of another key than client {client} had advertised")
        for seed in seeds.values():
            add_mask(total, seed, -1)
        for client in sorted(survivors):
            for neighbour in self.neighbours[client]:
                if neighbour in keys:
                    seed = pair_seed(keys[neighbour], self.keys[client].masks)
                    add_mask(total, seed, -sign(client, neighbour))

    def _secret(self, client: int, opened: Mapping[int, Mapping[int, int]]) -> bytes:
        shares = {place(holder): given[client] for holder, given in opened.items() if client in given}
        if len(shares) < self.threshold:
            raise TooFewShares(f"{len(shares)} shares of client {client}, expected {self.threshold}")
        enough = dict(sorted(shares.items())[: self.threshold])
        secret = reconstruct(enough)
        if secret >= 1 << 8 * KEY_BYTES:
            raise ValueError(f"got shares of client {client} that give no key of {KEY_BYTES} bytes")
        return secret.to_bytes(KEY_BYTES, "little")


def place(client: int) -> int:
    """Where a client's shares lie on the polynomials: never at 0, where the secret is."""
    return client + 1


def pair_seed(private: bytes, public: bytes) -> bytes:
    """The seed of the mask that two clients have in common."""
    return agree(private, public, "mask")


def sign(client: int, neighbour: int) -> int:
    """Whether a client adds (1) the mask that it has in common with a neighbour, or takes it away (-1)."""
    return 1 if client < neighbour else -1
