"""How a signal-to-noise ratio becomes bits a second. Ratios are linear, efficiencies in bits per second and
hertz."""

from collections.abc import Callable
from functools import cache

import numpy as np

NOISE_DBM_HZ = -174.0  # thermal noise at 290 K
MAX_EFFICIENCY = {
    "64qam": 5.55,
    "256qam": 7.41,
}  # the highest rates of the CQI tables of 3GPP TS 38.214, 5.2.2.1
QUADRATURE_NODES = 128
CHUNK = 1024  # links whose numbers stay in the processor's cache
Efficiency = Callable[[np.ndarray], np.ndarray]


def decibel(ratio: np.ndarray | float) -> np.ndarray:
    return 10 * np.log10(ratio)


def linear(db: np.ndarray | float) -> np.ndarray:
    return 10 ** (np.asarray(db) / 10)


def noise_dbm(bandwidth_hz: np.ndarray | float, noise_figure_db: float) -> np.ndarray:
    return NOISE_DBM_HZ + decibel(bandwidth_hz) + noise_figure_db


def shannon(snr: np.ndarray) -> np.ndarray:
    return np.log2(1 + snr)


def truncated(snr: np.ndarray, modulation: str = "64qam") -> np.ndarray:
    """The form of 3GPP TR 36.942, A.2: a part of Shannon's, nothing below -10 dB, no more than a highest
    rate. The numbers are a mix: A.2 has 0.6 and 4.4 bit/s/Hz on a downlink, 0.4 and 2.0 on an uplink; here
    the part is 0.75 on both, what overhead takes is a key of its own, and the highest rate is that of the
    modulation's CQI table."""
    return np.where(snr < 0.1, 0.0, np.minimum(0.75 * np.log2(1 + snr), MAX_EFFICIENCY[modulation]))


def efficiency(rate: str, modulation: str) -> Efficiency:
    if rate == "shannon":
        return shannon
    if rate == "truncated":
        return lambda snr: truncated(snr, modulation)
    from fedray.network import sionna

    db, efficiency = sionna.link_adaptation(modulation)
    return lambda snr: np.interp(decibel(np.maximum(snr, 1e-12)), db, efficiency, left=0.0)


def ergodic(efficiency: Efficiency, snr: np.ndarray, k: np.ndarray) -> np.ndarray:
    """E[carried(snr g)] over the power g of a Rician channel of factor k (0: Rayleigh; inf: none), each
    link's own, by Gauss-Legendre over g's quantiles."""
    if len(snr) > CHUNK:
        parts = [slice(i, i + CHUNK) for i in range(0, len(snr), CHUNK)]
        return np.concatenate([ergodic(efficiency, snr[part], k[part]) for part in parts])
    weights, quantiles = _quadrature()
    if not k.any():  # all Rayleigh
        return efficiency(snr[..., None] * quantiles[0]) @ weights
    share = np.where(np.isinf(k), 1.0, k / (1 + np.where(np.isinf(k), 0, k))) * (len(quantiles) - 1)
    low = np.minimum(share.astype(int), len(quantiles) - 2)
    part = (share - low)[..., None]
    power = (1 - part) * quantiles[low] + part * quantiles[low + 1]
    return efficiency(snr[..., None] * power) @ weights


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Weights [nodes], and the power's quantiles [K-factors, nodes] for k / (1 + k) = 0, 1/32, ..., 1."""
    from scipy.stats import ncx2

    at, weights = np.polynomial.legendre.leggauss(QUADRATURE_NODES)
    u = 1 - ((1 - at) / 2) ** 2  # closer together where the power grows without bound
    shares = np.arange(32) / 32
    k = shares / (1 - shares)
    rows = [
        -np.log1p(-u),
        *(ncx2.ppf(u, 2, 2 * one) / (2 * (1 + one)) for one in k[1:]),
        np.ones(QUADRATURE_NODES),
    ]
    return weights * (1 - at) / 2, np.array(rows)


def min_efficient_snr(efficiency: Efficiency) -> float:
    """The signal-to-noise ratio below which a sender carries more over less of its band: where carried(snr) /
    snr is greatest, for whatever fading. 0 for Shannon's, to which more band is always worth something."""
    snr = np.logspace(-3, 1, 401)
    best = [
        int(np.argmax(ergodic(efficiency, snr, np.full(len(snr), k)) / snr)) for k in (0.0, 1.0, 5.0, np.inf)
    ]
    return float(snr[max(best)]) if max(best) else 0.0


def outage(threshold: float | np.ndarray, snr: np.ndarray | float) -> np.ndarray:
    """The chance that a Rayleigh channel of mean `snr` is weaker than `threshold` (the packet error of Chen,
    Yang, Saad et al. 2021, Eq. 7, for threshold 1.08)."""
    return -np.expm1(-np.asarray(threshold) / snr)


def arq(failure: float, attempts: int) -> tuple[float, float]:
    """Mean number of tries and what is lost in the end, of at most so many tries that each fail with this
    chance."""
    return (1 - failure**attempts) / (1 - failure), failure**attempts


def peak_rate_bps(
    blocks: int,
    layers: int,
    bits: int,
    symbol_s: float,
    code_rate: float = 948 / 1024,
    overhead: float = 0.14,
) -> float:
    """The highest rate of an NR carrier (3GPP TS 38.306, 4.1.2).

    Args:
        blocks: resource blocks of the carrier.
        layers: spatial layers.
        bits: of a modulated symbol.
        symbol_s: the length of an OFDM symbol with its cyclic prefix.
        code_rate: the highest.
        overhead: the part of the symbols that carries no data.
    """
    return layers * bits * code_rate * blocks * 12 / symbol_s * (1 - overhead)
