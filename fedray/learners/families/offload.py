"""Frozen networks that leave a GPU's memory between two uses (CPU offload)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

HOST = torch.device("cpu")


class Offload:
    """Networks that are on a device while they are used and, once offloaded, in host memory otherwise, until
    their weights train: then they stay. Weights move, and compute nowhere else: the bits are the same.

    Args:
        networks: that are used together.
        device: where they are, and compute. On the processor and on "meta" there is nothing to save.
    """

    def __init__(self, networks: Sequence[nn.Module], device: torch.device) -> None:
        self.networks = networks
        self.device = device
        self.host = device if device.type == "meta" else HOST
        self._offloaded = False
        self._uses = 0  # that have begun and not ended

    @property
    def trains(self) -> bool:
        """Whether some of their weights do."""
        return any(p.requires_grad for network in self.networks for p in network.parameters())

    def offload(self) -> None:
        """Takes them to host memory, unless they train or are in use."""
        if self.device == self.host or self._offloaded or self._uses or self.trains:
            return
        self._move(self.host)
        self._offloaded = True
        torch.cuda.empty_cache()  # for other actors on the same GPU

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, they are on the device; afterwards they are offloaded."""
        if self._offloaded:
            self._move(self.device)
            self._offloaded = False
        self._uses += 1
        try:
            yield
        finally:
            self._uses -= 1
            self.offload()

    def _move(self, device: torch.device) -> None:
        for network in self.networks:
            network.to(device)
