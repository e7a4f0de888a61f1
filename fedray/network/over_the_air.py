"""Over-the-air aggregation: all clients of a round send at once, and the channel adds (Zhu, Wang and Huang
2020, truncated channel inversion; Yang et al. 2020)."""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from fedray.network.channel import RadioChannel
from fedray.network.links import LinkContext, RoundStart, TransferCosts, TransferRequests

LONGEST = 12  # standard deviations of a fading power above its mean 1, up to which it is integrated


@lru_cache(maxsize=4096)
def mean_inverse_power(threshold: float, k: float) -> float:
    """E[1/g; g >= threshold] of the fading power g, of mean 1, of a Rician channel of factor k: what
    inverting the channel takes, where it is inverted. Over a Rayleigh channel (k = 0) the exponential
    integral E1(threshold); without fading (k infinite) 1, for a threshold up to 1."""
    from scipy.integrate import quad
    from scipy.special import exp1
    from scipy.stats import ncx2

    if k == 0:
        return float(exp1(threshold))
    if math.isinf(k):
        return 1.0
    scale = 2 * (1 + k)
    end = max(1.0, threshold) + LONGEST * math.sqrt(1 + 2 * k) / (1 + k)

    def integrand(g: float) -> float:
        return float(scale * ncx2.pdf(scale * g, 2, 2 * k)) / g

    points = [1.0] if threshold < 1 else None
    return float(quad(integrand, threshold, end, points=points, limit=200)[0])


class OverTheAirLink(RadioChannel):
    """An uplink on which the signals of all who send in a round add up. Fading is flat, one power g for each
    client and round; who has less than the threshold is silent."""

    fades = False  # a transmission takes the same time, however it fades
    adjusts_power = False

    def __init__(self, section: Any, context: LinkContext) -> None:
        super().__init__(section.channel, context)
        self.allocation = None
        self.threshold = float(section.threshold)

    def receive_snr(self, start: RoundStart, requests: TransferRequests) -> float:
        """The signal-to-noise ratio of the loudest client's symbols at the server. It is the same for all:
        the least SNR_k / E[1/g; g >= threshold] of the round's clients, of mean ratio SNR_k at full power,
        so that no client's mean power over its fades exceeds its transmit power.

        Args:
            start: the round.
            requests: of all its clients.
        """
        snr, k = self.mean_snr(start, requests.sender, requests.receiver)
        inverse = np.array([mean_inverse_power(self.threshold, one) for one in k.tolist()])
        return float((snr / inverse).min())

    def fading_powers(self, start: RoundStart, requests: TransferRequests) -> np.ndarray:
        """g of each client in this round [n]."""
        _, k = self.mean_snr(start, requests.sender, requests.receiver)
        return self._fading_power(start, "over the air", k, requests.sender)

    def transfers(self, start: RoundStart, requests: TransferRequests) -> TransferCosts:
        """Of no bytes, which take nothing.

        Raises:
            ValueError: for any: there is no code on symbols that add up.
        """
        if requests.nbytes.any():
            got = f"{int(requests.nbytes.max())} bytes"
            raise ValueError(f"an over_the_air uplink: got {got} to carry, expected symbols")
        nothing = np.zeros(len(requests.nbytes))
        return TransferCosts(nothing, nothing, nothing.astype(bool))

    def symbol_transfers(
        self, start: RoundStart, requests: TransferRequests, symbols: np.ndarray
    ) -> TransferCosts:
        """One transmission over the whole band, of all the round's clients. A client transmits with
        P SNR / (SNR_k g), P its transmit power and SNR the receive signal-to-noise ratio: what an update as
        loud as the loudest takes, and quieter ones less. Who is silent spends nothing, and is lost. The
        server receives one signal, whose watts its senders share."""
        section = self.section
        snr, _ = self.mean_snr(start, requests.sender, requests.receiver)
        power = self.fading_powers(start, requests)
        silent = power < self.threshold
        on_air_s = symbols / (section.bandwidth_hz * (1 - section.overhead))
        of_limit = self.receive_snr(start, requests) / (snr * power)
        receive_w = section.receive_w / max(1, int((~silent).sum()))
        energy_j = (self.power_w(requests.sender, of_limit) + receive_w) * on_air_s
        time_s = section.latency_s * requests.messages + on_air_s
        return TransferCosts(np.where(silent, 0.0, time_s), np.where(silent, 0.0, energy_j), silent)
