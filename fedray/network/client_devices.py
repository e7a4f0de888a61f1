"""Every client's device: which kind it is, when it is available, and when it drops out."""

import math
from functools import cached_property
from pathlib import Path

import numpy as np

from fedray.network.devices import Device, open_device
from fedray.network.links import RoundStart
from fedray.network.presence import Presence
from fedray.randomness import uniforms
from fedray.scenario.device import Mix
from fedray.scenario.kinds import implementation
from fedray.scenario.network import Network


class ClientDevices:
    """The devices of so many clients; those of a mix are drawn once, by their shares.

    Args:
        section: `network`.
        clients: how many there are.
        seed: the run's.
        folder: where relative paths start.
    """

    def __init__(self, section: Network, clients: int, seed: int, folder: Path) -> None:
        self.clients = clients
        self.seed = seed
        device = section.device
        self.shares: np.ndarray | None = None  # how frequent each kind is; None: in turn
        self.kinds: list[Device]
        if isinstance(device, Mix):
            self.kinds = [open_device(part.device) for part in device.of]
            self.shares = np.array([part.share for part in device.of])
        else:
            self.kinds = implementation(device).of_clients(device, folder, "network.device")
        trace = section.availability
        self.presence = None if trace is None else Presence(trace, folder, "network.availability")

    @cached_property
    def kind_of(self) -> np.ndarray:
        """Which of the kinds each client's is [clients]."""
        if self.shares is None:
            return np.arange(self.clients) % len(self.kinds)
        drawn = uniforms(self.seed, 0, "device", np.arange(self.clients))
        return np.searchsorted(np.cumsum(self.shares / self.shares.sum())[:-1], drawn, side="right")

    @property
    def transmit_dbm(self) -> np.ndarray:
        """Of each client's radio; one number where all are of a kind."""
        each = np.array([kind.transmit_dbm for kind in self.kinds])
        return each[self.kind_of] if len(each) > 1 else each

    def __getitem__(self, client: int) -> Device:
        return self.kinds[self.kind_of[client]] if len(self.kinds) > 1 else self.kinds[0]

    def available(self, start: RoundStart, clients: np.ndarray) -> np.ndarray:
        """Those that can be selected as a round begins."""
        there = self._happens(start.round_number, clients, "availability")
        if self.presence is not None:
            there &= self.presence.there(start.time_s, clients)
        return clients[there]

    def next_s(self, time_s: float, clients: np.ndarray) -> float:
        """The first second, from this one on, at which one of these clients is there."""
        return time_s if self.presence is None else self.presence.next_s(time_s, clients)

    def leaves_s(self, time_s: float, client: int) -> float:
        """The second at which a client leaves that is there at this one; infinite for one that does not."""
        return math.inf if self.presence is None else self.presence.leaves_s(time_s, client)

    def drops(self, round_number: int, clients: np.ndarray) -> dict[int, float]:
        """Those that drop out within their local update, with the part of it that is done by then."""
        dropped = clients[self._happens(round_number, clients, "dropout")]
        parts = uniforms(self.seed, round_number, "dropped after", dropped)
        return dict(zip(dropped.tolist(), parts.tolist(), strict=True))

    def _happens(self, round_number: int, clients: np.ndarray, what: str) -> np.ndarray:
        """Whether the event of this name, whose chance is a key of a device's section, happens to each."""
        chances = np.array([getattr(kind.section, what) for kind in self.kinds])
        chance = chances[self.kind_of[clients]] if len(self.kinds) > 1 else chances[0]
        return uniforms(self.seed, round_number, what, clients) < chance
