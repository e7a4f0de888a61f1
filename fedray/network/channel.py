"""Radio channels: a signal-to-noise ratio and its fading make a rate, that a time and joules."""

import numpy as np

from fedray.network import allocation
from fedray.network.band import BandLink
from fedray.network.budget import LinkBudget, RadioSection
from fedray.network.links import LinkContext, RoundStart, TransferCosts, TransferRequests
from fedray.network.propagation import LIGHT_MPS
from fedray.network.rates import arq, decibel, linear
from fedray.randomness import normals, uniforms
from fedray.scenario.band import BLOCK_HZ

# in which a sender's share of the band carries a transport block (3GPP TS 38.211, 4.3.2, at 15 kHz)
SLOT_S = 1e-3
ASSIGNMENTS = 8  # coherence times in which resource blocks are assigned anew; then the same again
COHERENCE_TIMES = 32  # what takes longer has the ergodic rate


class RadioChannel(BandLink):
    """One direction over a channel of scenario.network. Which pairs are computed together makes no
    difference to any pair's draws."""

    section: RadioSection
    adjusts_power = True

    def __init__(self, section: RadioSection, context: LinkContext) -> None:
        super().__init__(section, context)
        self.seed = context.seed
        self.budget = LinkBudget(section, context)
        self.coherence_s = 0.423 * LIGHT_MPS / (section.speed_mps * section.frequency_hz)

    def is_reachable(self, snr: np.ndarray, share: np.ndarray | float) -> np.ndarray:
        """Whether the mean signal is worth a try at all."""
        least = 0.0 if self.section.outage_db is None else linear(self.section.outage_db)
        return super().is_reachable(snr, share) & (self.snr_in_share(snr, share) >= least)

    def rates_at_power(
        self, start: RoundStart, pair: tuple[int, int], share: float, fractions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        sender, receiver = (np.array([end]) for end in pair)
        snr, k = self.mean_snr(start, sender, receiver)
        rates = self.rate_bps(snr * fractions, np.full(len(fractions), k[0]), share)
        return rates, self.power_w(sender, fractions) + self.section.receive_w

    def fading_speedup(self, start: RoundStart, requests: TransferRequests) -> np.ndarray:
        snr, k = self.mean_snr(start, requests.sender, requests.receiver)
        at_mean_s, faded_s = self._on_air_s(start, requests, snr, k)
        fades = np.isfinite(faded_s) & (faded_s > 0)
        ratio = np.divide(at_mean_s, faded_s, out=np.ones(len(faded_s)), where=fades)
        return np.where(np.isfinite(faded_s), ratio, 0.0)

    def transfers(self, start: RoundStart, requests: TransferRequests) -> TransferCosts:
        """Transfers of one pair in a round fade, are tried and lose blocks each by itself: as if a coherence
        time lay between them, which between short ones in a row it need not. A transfer is lost whose every
        try is below `outage_db`, or of whose blocks one is left after `harq` tries."""
        section = self.section
        snr, k = self.mean_snr(start, requests.sender, requests.receiver)
        time_s = self._on_air_s(start, requests, snr, k)[1]
        reached = np.isfinite(time_s)
        tries, in_outage = self._tries(start, requests, snr, k)
        lost = ~reached | in_outage | self._lost_blocks(start, requests, np.where(reached, time_s, 0.0))
        on_air_s = time_s * tries
        sent_s = np.where(reached, on_air_s, 0.0)
        part = requests.share if self.direction == "downlink" else 1.0
        sending_s = allocation.broadcast_time_s(sent_s) if section.allocation.broadcasts else sent_s
        energy_j = self.power_w(requests.sender, part) * sending_s + section.receive_w * sent_s
        return TransferCosts(section.latency_s * requests.messages * tries + on_air_s, energy_j, lost)

    def symbol_transfers(
        self, start: RoundStart, requests: TransferRequests, symbols: np.ndarray
    ) -> TransferCosts:
        """A complex symbol takes a second and hertz of the sender's share of the band, less its overhead.
        What is uncoded always arrives, with noise: it has no outage, no second try, and no block to lose."""
        section = self.section
        hz = section.bandwidth_hz * (1 - section.overhead) * requests.share
        on_air_s = symbols / hz
        part = requests.share if self.direction == "downlink" else 1.0
        energy_j = (self.power_w(requests.sender, part) + section.receive_w) * on_air_s
        time_s = section.latency_s * requests.messages + on_air_s
        return TransferCosts(time_s, energy_j, np.zeros(len(on_air_s), bool))

    def mean_snr_db(self, start: RoundStart, requests: TransferRequests) -> np.ndarray:
        snr, _ = self.mean_snr(start, requests.sender, requests.receiver)
        db: np.ndarray = decibel(self.snr_in_share(snr, requests.share))
        return db

    def _tries(
        self, start: RoundStart, requests: TransferRequests, snr: np.ndarray, k: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """How often each transfer is tried, and whether every try is in outage [n].

        Args:
            start: the round.
            requests: the transfers.
            snr: each one's mean over the whole band.
            k: its K-factor.
        """
        if self.section.outage_db is None:
            return np.ones(len(snr), int), np.zeros(len(snr), bool)
        attempts = self.section.attempts
        number = requests.number[:, None] * attempts + np.arange(attempts)
        sender = requests.sender[:, None]
        receiver = requests.receiver[:, None]
        power = self._fading_power(start, "try", k[:, None], sender, receiver, number)
        signal = self.snr_in_share(snr, requests.share)[:, None] * power
        outage = signal < linear(self.section.outage_db)
        return np.where(outage.all(1), attempts, np.argmin(outage, 1) + 1), outage.all(1)

    def _lost_blocks(self, start: RoundStart, requests: TransferRequests, time_s: np.ndarray) -> np.ndarray:
        """Whether one of a transfer's blocks is left over after `harq` tries [n]."""
        section = self.section
        if section.harq is None:
            return np.zeros(len(time_s), bool)
        sent, left = arq(section.block_error, section.harq)
        blocks = np.ceil(time_s / (sent * SLOT_S))
        ids = requests.sender, requests.receiver, requests.number
        drawn = uniforms(self.seed, start.round_number, f"blocks left {self.direction}", *ids)
        return drawn < -np.expm1(blocks * np.log1p(-left))

    def _on_air_s(
        self, start: RoundStart, requests: TransferRequests, snr: np.ndarray, k: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Seconds that one try of each transfer takes at its mean rate, and as it fades [n]; infinite where
        the receiver is out of reach. Arguments as in `_tries`."""
        by_blocks = self.section.allocation.by_blocks
        if by_blocks:
            block_rates = self._block_rates_bps(start, requests, snr, k)
            rate = block_rates.mean(1)
            reached = block_rates.any(1)
        else:
            rate = self.rate_bps(snr, k, requests.share)
            reached = self.is_reachable(snr, requests.share)
        with np.errstate(divide="ignore", invalid="ignore"):
            sent_s = np.where(requests.nbytes > 0, 8 * requests.nbytes / rate, 0.0)
            at_mean_s = np.where(reached, sent_s, np.inf)
        short = (at_mean_s > 0) & (at_mean_s < COHERENCE_TIMES * self.coherence_s)
        faded_s = at_mean_s.copy()
        if short.any():
            few = TransferRequests(*(values[short] for values in requests))
            if by_blocks:
                bps = block_rates[short][:, np.arange(2 * COHERENCE_TIMES) % ASSIGNMENTS]
            else:
                bps = self._faded_rates_bps(start, few, snr[short], k[short])
            faded_s[short] = self._faded_time_s(8.0 * few.nbytes, bps, rate[short])
        return at_mean_s, faded_s

    @property
    def block_attempts(self) -> int:
        return self.section.harq or super().block_attempts

    def _fading_power(self, start: RoundStart, purpose: str, k: np.ndarray, *ids: np.ndarray) -> np.ndarray:
        """The power of a channel of K-factor k and mean 1, for each of the ids.

        Args:
            start: the round.
            purpose: what is drawn, beside the direction.
            k: 0 for Rayleigh, infinite for no fading.
            ids: what tells the draws apart; all broadcast with k.
        """
        purpose = f"fading {self.direction} {purpose}"
        scattered = np.where(np.isinf(k), 0.0, 1 / (1 + k))
        steady = np.sqrt(1 - scattered)
        in_phase, quadrature = (
            normals(self.seed, start.round_number, f"{purpose} {part}", *ids) for part in "iq"
        )
        power: np.ndarray = (steady + np.sqrt(scattered / 2) * in_phase) ** 2 + scattered / 2 * quadrature**2
        return power

    def _faded_rates_bps(
        self, start: RoundStart, requests: TransferRequests, snr: np.ndarray, k: np.ndarray
    ) -> np.ndarray:
        """What each of twice COHERENCE_TIMES carries of a transfer, as its own fade lets it, in bit/s
        [n, times]. Arguments as in `_tries`."""
        used, hz = self.used_bandwidth(snr, requests.share)
        times = requests.number[:, None] * 2 * COHERENCE_TIMES + np.arange(2 * COHERENCE_TIMES)
        sender = requests.sender[:, None]
        receiver = requests.receiver[:, None]
        power = self._fading_power(start, "block", k[:, None], sender, receiver, times)
        return hz[:, None] * self.goodput_fraction * self.efficiency(used[:, None] * power)

    def _faded_time_s(self, bits: np.ndarray, bps: np.ndarray, rate: np.ndarray) -> np.ndarray:
        """Seconds of transfers of so many bits [n] that see only these coherence times [n, times]; what is
        left after them goes at the mean rate."""
        sent = np.cumsum(bps * self.coherence_s, 1)
        whole = (sent < bits[:, None]).sum(1)  # coherence times that are used up
        row = np.arange(len(bits))
        last = np.minimum(whole, bps.shape[1] - 1)
        before = np.where(whole > 0, sent[row, np.maximum(whole - 1, 0)], 0.0)
        rest = np.where(whole < bps.shape[1], bps[row, last], rate)
        seconds: np.ndarray = whole * self.coherence_s + (bits - before) / rest
        return seconds

    def _block_rates_bps(
        self, start: RoundStart, requests: TransferRequests, snr: np.ndarray, k: np.ndarray
    ) -> np.ndarray:
        """In each of ASSIGNMENTS coherence times every resource block, which fades by itself, goes to a
        client that it serves well. Bit/s of each [n, assignments]. Arguments as in `_tries`."""
        blocks = np.arange(int(self.section.bandwidth_hz // BLOCK_HZ))
        clients = requests.client
        hz = self.section.bandwidth_hz * self.goodput_fraction / len(blocks)
        bps = np.empty((len(snr), ASSIGNMENTS))
        for i in range(ASSIGNMENTS):
            power = self._fading_power(start, "blocks", k[:, None], clients[:, None], blocks, np.array(i))
            each = self.efficiency(self.snr_in_share(snr, 1 / len(snr))[:, None] * power)
            taken = allocation.assign_blocks(each, bps[:, :i].sum(1) / hz)
            # one more block, and its sender's power is spread thinner
            in_share = self.snr_in_share(snr, taken.sum(1) / len(blocks))
            bps[:, i] = hz * (taken * self.efficiency(in_share[:, None] * power)).sum(1)
        return bps
