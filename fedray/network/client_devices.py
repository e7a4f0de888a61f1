"""Every client's device: which kind it is, when it is available, and when it drops out."""

from functools import cached_property

import numpy as np

from fedray.network.devices import Device, open_device
from fedray.randomness import uniforms
from fedray.scenario.device import ComputeDevice, Mix


class ClientDevices:
    """The devices of so many clients; those of a mix are drawn once, by their shares."""

    def __init__(self, section: ComputeDevice | Mix, clients: int, seed: int) -> None:
        self.clients = clients
        self.seed = seed
        self.kinds: list[Device] = [open_device(section)] if not isinstance(section, Mix) else []
        self.shares = np.ones(1)
        if isinstance(section, Mix):
            self.kinds = [open_device(part.device) for part in section.of]
            self.shares = np.array([part.share for part in section.of])

    @cached_property
    def kind_of(self) -> np.ndarray:
        """Which of the kinds each client's is [clients]."""
        drawn = uniforms(self.seed, 0, "device", np.arange(self.clients))
        return np.searchsorted(np.cumsum(self.shares / self.shares.sum())[:-1], drawn, side="right")

    @property
    def transmit_dbm(self) -> np.ndarray:
        """Of each client's radio; one number where all are of a kind."""
        each = np.array([kind.transmit_dbm for kind in self.kinds])
        return each[self.kind_of] if len(each) > 1 else each

    def __getitem__(self, client: int) -> Device:
        return self.kinds[self.kind_of[client]] if len(self.kinds) > 1 else self.kinds[0]

    def available(self, round_number: int, clients: np.ndarray) -> np.ndarray:
        """Those that can be selected in this round."""
        return clients[self._happens(round_number, clients, "availability")]

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
