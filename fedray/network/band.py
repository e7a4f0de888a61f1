"""What radio links have in common, whatever makes their signal-to-noise ratios: rates over shares of a band,
and the power of senders."""

from typing import Protocol

import numpy as np

from fedray.network.allocations import open_allocation
from fedray.network.links import Link, LinkContext, RoundStart, ShareRates
from fedray.network.rates import arq, efficiency, ergodic, linear, min_efficient_snr
from fedray.scenario.band import BLOCK_HZ, RadioBand

UNTIL_DELIVERED = 10**6  # attempts


class Budget(Protocol):
    """What makes the mean signal-to-noise ratios of one direction."""

    def mean_snr(
        self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mean signal-to-noise-and-interference ratio over the whole band, and the K-factor [n]."""

    def sender_dbm(self, sender: np.ndarray) -> np.ndarray:
        """The power of these senders."""

    def cells(self, start: RoundStart, clients: np.ndarray) -> np.ndarray:
        """The cell that serves each of these clients [n]."""


class BandLink(Link):
    """One direction over a band of scenario.band. Which pairs are computed together makes no difference to
    any of them."""

    section: RadioBand
    budget: Budget
    reaches_all = False
    fades = True

    def __init__(self, section: RadioBand, context: LinkContext) -> None:
        super().__init__(section, context)
        self.direction = context.direction
        self.allocation = open_allocation(section.allocation)
        self.efficiency = efficiency(section.rate, section.modulation)
        self.min_efficient_snr = min_efficient_snr(self.efficiency)

    def mean_snr(
        self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.budget.mean_snr(start, sender, receiver)

    def rates_bps(self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        snr, k = self.mean_snr(start, sender, receiver)
        return np.where(self.is_reachable(snr, 1.0), self.rate_bps(snr, k, 1.0), 0.0)

    def rate_bps(self, snr: np.ndarray, k: np.ndarray, share: np.ndarray | float) -> np.ndarray:
        """The ergodic rate over a share of the band."""
        snr, hz = self.used_bandwidth(snr, share)
        return hz * self.goodput_fraction * ergodic(self.efficiency, snr, k)

    def is_reachable(self, snr: np.ndarray, share: np.ndarray | float) -> np.ndarray:
        """Whether the mean signal is worth a try at all."""
        carries: np.ndarray = self.efficiency(self.used_bandwidth(snr, share)[0]) > 0
        return carries

    def in_reach(self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray) -> np.ndarray:
        return self.is_reachable(self.mean_snr(start, sender, receiver)[0], 1.0)

    def share_rates(self, start: RoundStart, sender: np.ndarray, receiver: np.ndarray) -> ShareRates:
        if self.section.allocation.broadcasts:  # each client has the whole band
            return super().share_rates(start, sender, receiver)
        snr, k = self.mean_snr(start, sender, receiver)

        def rates(share: np.ndarray | float, fair_share: float) -> np.ndarray:
            shape = np.broadcast_shapes(np.shape(share), snr.shape)
            flat = [np.broadcast_to(a, shape).ravel() for a in (snr, k, share)]
            return self.rate_bps(*flat).reshape(shape) * self.is_reachable(snr, fair_share)

        return rates

    def power_w(self, sender: np.ndarray, part: np.ndarray | float) -> np.ndarray:
        """Of the sender's radio, where its antenna has this part of its power."""
        antenna_w = linear(self.budget.sender_dbm(sender) - 30) * part
        return antenna_w / self.section.amplifier_efficiency + self.section.circuit_w

    def sending_w(self, sender: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.power_w(sender, 1.0) + self.section.receive_w, sender.shape)

    @property
    def goodput_fraction(self) -> float:
        """The part of the band's rate that carries new data: not overhead, not what is sent again."""
        tries, _ = arq(self.section.block_error, self.block_attempts)
        return (1 - self.section.overhead) / tries

    @property
    def block_attempts(self) -> int:
        """How often a block is sent at most."""
        return UNTIL_DELIVERED

    def cells(self, start: RoundStart, clients: np.ndarray) -> np.ndarray:
        return self.budget.cells(start, clients)

    def snr_in_share(self, snr: np.ndarray, share: np.ndarray | float) -> np.ndarray:
        """A device has all its power for its share of the band, though for no less than a resource block; a
        base station only that share of it."""
        if self.direction == "downlink":
            return snr
        return snr / np.maximum(share, min(1.0, BLOCK_HZ / self.section.bandwidth_hz))

    def used_bandwidth(self, snr: np.ndarray, share: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """The signal-to-noise ratio over what is used of a share of the band, and its hertz: a distant sender
        uses fewer resource blocks, down to one, where that carries more."""
        hz = self.section.bandwidth_hz * np.asarray(share)
        in_share = self.snr_in_share(snr, share)
        used = np.maximum(in_share, np.minimum(self.min_efficient_snr, in_share * hz / BLOCK_HZ))
        ones = np.ones(np.broadcast(in_share, used).shape)
        return used, hz * np.divide(in_share, used, out=ones, where=used > 0)
