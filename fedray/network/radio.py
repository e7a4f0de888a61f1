"""The links and devices of a scenario's network."""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np

from fedray.network.client_devices import ClientDevices
from fedray.network.devices import Device, open_device
from fedray.network.geometry import Geometry
from fedray.network.links import Link, LinkContext, RoundStart, TransferRequests, open_link
from fedray.network.work import Work
from fedray.randomness import SERVER_ID
from fedray.scenario.network import DIRECTIONS, Network


class Radio:
    """Links and devices of a `network` section."""

    def __init__(self, section: Network, clients: int = 0, seed: int = 0, folder: Path = Path()) -> None:
        """
        Args:
            section: of the scenario.
            clients: how many there are.
            seed: the run's.
            folder: where relative paths start.
        """
        self.section = section
        self.clients = clients
        self.folder = folder
        self.geometry = Geometry(section.cell, clients, seed, folder) if section.cell else None
        self.devices = ClientDevices(section, clients, seed, folder)
        self.server = open_device(section.server)
        directions = DIRECTIONS if section.backhaul is None else (*DIRECTIONS, "backhaul")
        self.links = {d: self._open(d, seed, folder) for d in directions}

    def _open(self, direction: str, seed: int, folder: Path) -> Link:
        transmit_dbm: np.ndarray | None = self.devices.transmit_dbm
        if direction == "downlink":
            server_dbm = self.section.server.transmit_dbm  # none: that of a base station
            transmit_dbm = None if server_dbm is None else np.array([server_dbm])
        context = LinkContext(
            direction=direction,
            key=f"network.{direction}",
            clients=self.clients,
            seed=seed,
            folder=folder,
            geometry=self.geometry,
            transmit_dbm=transmit_dbm,
        )
        return open_link(getattr(self.section, direction), context)

    def device(self, client: int) -> Device:
        """A client's, or the server's, which edge servers have too, by number."""
        return self.server if client <= SERVER_ID else self.devices[client]

    def hop_arrives(
        self, start: RoundStart, sender: int, receiver: int, nbytes: int = 1, share: float = 1.0
    ) -> bool:
        """Whether the first hop of this round between two clients over the sidelink arrives.

        Args:
            start: the round.
            sender: a client.
            receiver: another.
            nbytes: of the buffer.
            share: of the band.
        """
        values = (sender, receiver, nbytes, 1, share, 0)
        requests = TransferRequests(*(np.array([value]) for value in values))
        return not self.links["sidelink"].transfers(start, requests).lost[0]

    def sidelink_rates_bps(self, start: RoundStart, sender: int, receivers: Collection[int]) -> np.ndarray:
        """Mean rates [receivers]; 0 for one out of range."""
        to = np.array(list(receivers), np.int64)
        return self.links["sidelink"].rates_bps(start, np.full_like(to, sender), to)

    def sidelink_reaches(self, start: RoundStart, sender: int, receivers: Collection[int]) -> np.ndarray:
        """Which clients a client's sidelink reaches at all, bool [receivers]."""
        to = np.array(list(receivers), np.int64)
        return self.links["sidelink"].in_reach(start, np.full_like(to, sender), to)

    def finish_times_s(
        self, start: RoundStart, work: Work, clients: np.ndarray, encoded: Collection[int] = ()
    ) -> Callable[[int], np.ndarray]:
        """About how long each client's round takes [clients], as a function of how many share each band.

        Args:
            start: the round.
            work: what each client does.
            clients: by number.
            encoded: clients that have encoded their samples; the others do it first.
        """
        server = np.full_like(clients, SERVER_ID)
        links = []
        for direction, sender, receiver in (("downlink", server, clients), ("uplink", clients, server)):
            link = self.links[direction]
            bits = 8.0 * np.array([work.send_bytes(direction, c) for c in clients.tolist()])
            links.append((link.latency_s, bits, link.share_rates(start, sender, receiver)))
        compute_s = self._compute_times_s(work, clients.tolist(), set(encoded))

        def finish_s(at_once: int) -> np.ndarray:
            total_s = compute_s
            for latency_s, bits, rates_bps in links:
                with np.errstate(divide="ignore"):
                    total_s = total_s + latency_s + bits / rates_bps(1 / at_once, 1 / at_once)
            return total_s

        return finish_s

    def client_energy_j(
        self, start: RoundStart, work: Work, clients: np.ndarray, at_once: int, encoded: Collection[int] = ()
    ) -> np.ndarray:
        """Joules that a round takes each client: its local update, and its uplink [clients]; infinite for one
        out of reach.

        Args:
            start: the round.
            work: what each client does.
            clients: by number.
            at_once: how many share the uplink's band.
            encoded: clients that have encoded their samples; the others do it first.
        """
        flops = self._compute_flops(work, clients.tolist(), set(encoded))
        compute_j = [self.devices[c].energy_j(n) for c, n in zip(clients.tolist(), flops, strict=True)]
        if work.waits_s:
            idle_j = [self.devices[c].section.idle_w * work.waits_s(c) for c in clients.tolist()]
            compute_j = [busy + idle for busy, idle in zip(compute_j, idle_j, strict=True)]
        nbytes = np.array([work.send_bytes("uplink", c) for c in clients.tolist()])
        ones = np.ones_like(clients)
        requests = TransferRequests(clients, SERVER_ID * ones, nbytes, ones, ones / at_once, 0 * ones)
        costs = self.links["uplink"].transfers(start, requests)
        return np.array(compute_j) + np.where(np.isfinite(costs.time_s), costs.energy_j, np.inf)

    def compute_costs(
        self, work: Work, clients: np.ndarray, encoded: Collection[int] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """Joules and seconds of each client's local update [clients].

        Args:
            work: what each client does.
            clients: by number.
            encoded: clients that have encoded their samples; the others do it first.
        """
        flops = self._compute_flops(work, clients.tolist(), set(encoded))
        devices = [self.devices[c] for c in clients.tolist()]
        joules = [device.energy_j(n) for device, n in zip(devices, flops, strict=True)]
        seconds = [device.time_s(n) for device, n in zip(devices, flops, strict=True)]
        return np.array(joules), np.array(seconds)

    def first_transfers(
        self, start: RoundStart, work: Work, direction: str, sender: np.ndarray, receiver: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Joules and seconds of the first transfer of a buffer in this round between each two, which has the
        whole band [n]; infinite where it does not arrive.

        Args:
            start: the round.
            work: gives what is sent.
            direction: of the link.
            sender: clients, by number [n].
            receiver: clients, or the server, by number [n].
        """
        nbytes = np.array([work.send_bytes(direction, c) for c in sender.tolist()])
        ones = np.ones_like(sender)
        requests = TransferRequests(sender, receiver, nbytes, ones, 1.0 * ones, 0 * ones)
        costs = self.links[direction].transfers(start, requests)
        arrives = np.isfinite(costs.time_s) & ~costs.lost
        return np.where(arrives, costs.energy_j, np.inf), np.where(arrives, costs.time_s, np.inf)

    def _compute_times_s(self, work: Work, clients: list[int], encoded: set[int]) -> np.ndarray:
        """Seconds of each client's local update, and of encoding its samples where it has not yet."""
        flops = self._compute_flops(work, clients, encoded)
        seconds = np.array([self.devices[c].time_s(n) for c, n in zip(clients, flops, strict=True)])
        return seconds + [work.waits_s(c) for c in clients] if work.waits_s else seconds

    @staticmethod
    def _compute_flops(work: Work, clients: list[int], encoded: set[int]) -> list[float]:
        """Operations of each client's local update, and of encoding its samples where it has not yet."""
        flops = [work.train_flops(c, 0) for c in clients]
        if not work.encode_flops:
            return flops
        encoding = [0.0 if c in encoded else work.encode_flops(c) for c in clients]
        return [train + encode for train, encode in zip(flops, encoding, strict=True)]
