"""What every radio link of `network` has, whatever its channel: power, noise, and how a signal-to-noise ratio
becomes a rate. Rates in bits per second, decimal."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.allocation import AnyAllocation, Equal
from fedray.scenario.base import Fraction, NotNegative, Positive, Refused
from fedray.scenario.links import LinkSection

BLOCK_HZ = 180e3  # twelve subcarriers of 15 kHz (3GPP TS 38.211, 4.4.4.1)


class RadioBand(LinkSection):
    """A band, the power on it, and how a signal-to-noise ratio becomes a rate.

    On an uplink or sidelink a sender has all its power on its share of the band; a base station divides its
    power as it divides its band. A sender so far away that fewer resource blocks carry more sends over fewer,
    down to one.
    """

    bandwidth_hz: Positive = Field(description="The band in hertz, shared by all who send at once.")
    transmit_dbm: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None,
        description="The sender's power in dBm. None: transmit_dbm of the sending device, or of the server "
        "on a downlink.",
    )
    antenna_gain_db: Annotated[float, Field(allow_inf_nan=False)] = Field(
        default=0.0, description="The gain of both ends' antennas together, in dB."
    )
    noise_figure_db: NotNegative | None = Field(
        default=None,
        description="The receiver's noise figure in dB. None: 5 at the base station, 9 at a device.",
    )
    rate: Literal["shannon", "truncated", "nr_mcs"] = Field(
        default="truncated",
        description="Bits per second and hertz at a signal-to-noise ratio g. shannon: log2(1 + g). "
        "truncated: 0.75 log2(1 + g), nothing below -10 dB, no more than the modulation's highest rate (the "
        "form of 3GPP TR 36.942, A.2). nr_mcs: the modulation and coding scheme with at most 10% block "
        "errors (TS 38.214, through Sionna).",
    )
    modulation: Literal["64qam", "256qam"] = Field(
        default="64qam",
        description="The highest modulation of rate: truncated and nr_mcs. 64qam: up to 5.55 bit/s/Hz. "
        "256qam: up to 7.41 bit/s/Hz (the CQI tables of TS 38.214, 5.2.2.1).",
    )
    overhead: Fraction = Field(default=0.0, description="The share of the band that control and pilots take.")
    block_error: Fraction = Field(
        default=0.0,
        description="The share of blocks that fail and are sent again. rate: nr_mcs has its own beside it.",
    )
    allocation: AnyAllocation = Field(
        default=Equal(), description="How the band is shared: a mapping, or an allocation's name alone."
    )
    latency_s: NotNegative = Field(default=0.0, description="Seconds before the first bit of a transfer.")
    amplifier_efficiency: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Power of the antenna over power that the sender's amplifier draws."
    )
    circuit_w: NotNegative = Field(
        default=0.0, description="Watts of the sender's radio beside its amplifier, while it sends."
    )
    receive_w: NotNegative = Field(
        default=0.0, description="Watts of the receiver's radio while it receives."
    )

    fades: ClassVar[bool] = True

    @property
    def slows_devices(self) -> bool:  # type: ignore[override]
        return self.allocation.slows_devices

    @property
    def fades_by_block(self) -> bool:
        return self.allocation.by_blocks

    @property
    def blocks(self) -> int:
        """Resource blocks of the band."""
        return int(self.bandwidth_hz // BLOCK_HZ)

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        rates = {"shannon": "shannon1948mathematical", "truncated": "3gpp36942", "nr_mcs": "hoydis2022sionna"}
        yield rates[self.rate]

    def conflicts_of(self, direction: str, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts_of(direction, scenario)
        yield from self.allocation.conflicts_of(direction, self, scenario)
