"""One round of secure aggregation, as those that carry it out need to know it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from fedray.secure.protocol import Client, Server, Shares


@dataclass(frozen=True)
class SecureRound:
    """Who shares masks with whom in a round, and which clients answer at its end.

    Args:
        seed: the scenario's, from which the clients' secrets follow.
        round_number: from 1.
        threshold: of shares that give a secret back.
        bits: of a masked number, 64 or 32.
        grid: what one step of a masked integer stands for; None: that of the exact sum.
        value_bits: of an update's numbers, where there is a grid.
        neighbours: from whom each client that trains got shares.
        answering: the clients whose answers at the end arrive.
    """

    seed: int
    round_number: int
    threshold: int
    bits: int
    grid: float | None
    value_bits: int
    neighbours: Mapping[int, tuple[int, ...]]
    answering: tuple[int, ...]

    def client(self, number: int) -> Client:
        return Client(self.seed, self.round_number, number)

    def mask(self, numbers: np.ndarray, client: int) -> None:
        """A client masks its integers [n] in place."""
        keys = {n: self.client(n).advertise() for n in self.neighbours[client]}
        self.client(client).mask(numbers, keys)

    def unmask(self, total: np.ndarray, survivors: Collection[int]) -> None:
        """The round's end, of a sum [n] in place: those of the survivors that answer open shares, and the
        server takes the masks off.

        Raises:
            TooFewShares: for fewer than the threshold; the sum stays masked.
        """
        neighbours = {client: self.neighbours[client] for client in survivors}
        owners = {n for nearby in neighbours.values() for n in nearby} | set(survivors)
        clients = {number: self.client(number) for number in owners}
        keys = {number: client.advertise() for number, client in clients.items()}
        holders_of = {owner: [h for h in survivors if owner in (*neighbours[h], h)] for owner in owners}
        messages: dict[int, dict[int, bytes]] = {holder: {} for holder in survivors}
        held: dict[int, dict[int, Shares]] = {holder: {} for holder in survivors}
        for owner, holders in holders_of.items():
            others = sorted({*holders, *neighbours.get(owner, ())} - {owner})
            shares = clients[owner].share(others, self.threshold)
            for holder in holders:
                if holder == owner:
                    held[holder][owner] = shares[holder]
                else:
                    sealed = clients[owner].encrypt(shares[holder], holder, keys[holder])
                    messages[holder][owner] = sealed
        for holder, sealed_shares in messages.items():
            for owner, message in sealed_shares.items():
                held[holder][owner] = clients[holder].decrypt(message, owner, keys[owner])
        opened = {
            holder: clients[holder].open_shares(held[holder], survivors, self.threshold)
            for holder in survivors
            if holder in self.answering
        }
        Server(keys, neighbours, self.threshold).unmask(total, survivors, opened)
