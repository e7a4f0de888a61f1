"""Links of `network` that are radio channels. Rates in bits per second, decimal; energy in joules; places in
metres."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.band import RadioBand
from fedray.scenario.base import Count, NotNegative, Positive, Refused, Section

RANGE_GHZ = {"rma": (0.5, 30.0), "d2d": (0.45, 6.0)}  # that a model is made for; the others 0.5 to 100
LEAST_M = {"umi": 10, "uma": 35, "rma": 35, "inh": 1}  # 3GPP TR 38.901, Table 7.2


class InterferenceSection(Section):
    """What is received beside the signal and noise."""

    of_cells: ClassVar[bool] = False  # whether it comes from neighbouring cells


class Level(InterferenceSection):
    """Interference of one power over the whole band, at every receiver."""

    kind: Literal["level"] = Field(description="level: one power at every receiver.")
    dbm: Annotated[float, Field(allow_inf_nan=False)] = Field(
        description="Its power over the whole band, in dBm."
    )


class Neighbours(InterferenceSection):
    """Interference of six cells around this one, whose base stations (downlink) and devices (uplink) have the
    power and the channel of this cell's own."""

    kind: Literal["neighbours"] = Field(description="neighbours: six cells around this one.")
    load: Annotated[float, Field(gt=0, le=1)] = Field(description="The share of the time that they send.")
    distance_m: Positive = Field(description="Metres between two base stations.")

    of_cells: ClassVar[bool] = True


class RadioLink(RadioBand):
    """What every radio channel has beside its band: interference, fading, and transfers that fail. The mean
    signal-to-noise ratio follows from path loss, antennas and shadowing."""

    interference: Annotated[Level | Neighbours, Field(discriminator="kind")] | None = Field(
        default=None, description="What is received beside the signal and noise. None: no interference."
    )
    fading: Literal["model", "none", "rayleigh", "rician"] = Field(
        default="model",
        description="How the signal varies around its mean. model: Rician with the channel's own K-factor "
        "in line of sight, Rayleigh without. none: not at all. rayleigh: Rayleigh everywhere. rician: "
        "Rician with rician_k_db everywhere. A transfer of 32 coherence times or more has the ergodic rate; "
        "a shorter one draws a fade for each coherence time.",
    )
    rician_k_db: Annotated[float, Field(allow_inf_nan=False)] = Field(
        default=9.0, description="The K-factor of fading: rician, in dB."
    )
    speed_mps: Positive = Field(
        default=0.83,
        description="Metres per second of a device, or of what moves around it, for the coherence time "
        "0.423 c / (v f). The default is 3 km/h.",
    )
    harq: Count | None = Field(
        default=None,
        description="How often a block (what a slot of 1 ms carries) is sent at most, as over RLC in "
        "unacknowledged mode: a transfer of n blocks is lost with probability 1 - (1 - block_error^harq)^n. "
        "None: until it arrives, as in acknowledged mode.",
    )
    outage_db: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None,
        description="The faded signal-to-noise ratio in dB below which an attempt to send fails. None: "
        "every attempt succeeds.",
    )
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=1,
        description="How many attempts that fail by outage_db a transfer has before it is lost; time and "
        "energy of all of them count.",
    )

    implementation: ClassVar[str] = "fedray.network.channel:RadioChannel"
    needs_places: ClassVar[bool] = True
    carries_symbols: ClassVar[bool] = True

    @property
    def may_lose(self) -> bool:
        return self.outage_db is not None or self.harq is not None

    @property
    def has_chosen_power(self) -> bool:  # type: ignore[override]
        return self.allocation.shares_equally and not self.may_lose

    def conflicts_of(self, direction: str, scenario: Any) -> Iterator[Refused]:
        if self.attempts > 1 and self.outage_db is None:
            yield Refused(".attempts", self.attempts, "outage_db beside it: without one no try is in vain")
        if direction == "sidelink" and self.interference is not None and self.interference.of_cells:
            yield Refused(".interference", "neighbours", "a level: between devices there are no cells")
        yield from super().conflicts_of(direction, scenario)

    def _frequency(self, model: str, frequency_hz: float) -> Iterator[Refused]:
        low, high = RANGE_GHZ.get(model, (0.5, 100.0))
        if not low <= frequency_hz / 1e9 <= high:
            yield Refused(".frequency_hz", f"{frequency_hz:g}", f"{low:g} to {high:g} GHz for {model}")


class LogDistance(RadioLink):
    """Path loss `loss_db + 10 exponent log10(d / at_m)`, by default the literature's 128.1 + 37.6 log10(d /
    km), and log-normal shadowing whose correlation falls exponentially with distance (Gudmundson 1991)."""

    kind: Literal["log_distance"] = Field(description="log_distance: path loss by the logarithm of distance.")
    frequency_hz: Positive = Field(
        default=2.0e9, description="The carrier frequency in hertz, for the coherence time alone."
    )
    loss_db: Positive = Field(default=128.1, description="The path loss at the distance at_m, in dB.")
    at_m: Positive = Field(default=1000.0, description="The distance of loss_db, in metres.")
    exponent: Positive = Field(default=3.76, description="The path loss exponent; 2 in free space.")
    shadowing_db: NotNegative = Field(default=8.0, description="The standard deviation of shadowing, in dB.")
    correlation_m: Positive = Field(
        default=50.0,
        description="The distance in metres at which shadowing's correlation has fallen to 1 / e.",
    )

    cites: ClassVar[tuple[str, ...]] = ("gudmundson1991correlation",)


class Tr38901(RadioLink):
    """3GPP TR 38.901 through Sionna: line of sight, path loss, correlated shadowing and K-factor of outdoor
    devices (for inh, of devices in an office)."""

    kind: Literal["3gpp"] = Field(description="3gpp: a cell of TR 38.901.")
    model: Literal["umi", "uma", "rma", "inh"] = Field(
        description="The environment (TR 38.901, Table 7.2). umi: urban micro cell, 10 m and more from the "
        "base station. uma: urban macro cell, 35 m and more. rma: rural macro cell, 35 m and more. inh: "
        "indoor office, 1 m and more."
    )
    frequency_hz: Positive = Field(
        description="The carrier frequency in hertz: 0.5 to 100 GHz, for rma 0.5 to 30 GHz."
    )

    cites: ClassVar[tuple[str, ...]] = ("hoydis2022sionna", "3gpp38901")

    def conflicts_of(self, direction: str, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts_of(direction, scenario)
        yield from self._frequency(self.model, self.frequency_hz)
        cell = scenario.network.cell
        if cell is not None:
            name, nearest = cell.placement.nearest_m
            least = LEAST_M[self.model]
            if nearest < least:
                expected = f"at least {least}, the nearest of {self.model}"
                yield Refused(f"network.cell.placement.{name}", f"{nearest:g}", expected)


class Sidelink(RadioLink):
    """Device to device. A K-factor is its table's mean.

    Between vehicles a pair has a line of sight or, with TR 37.885's probability, a vehicle as high as the
    antennas between them (NLOSv), which adds a loss that is drawn. Buildings round a corner (NLOS) are not
    modelled.
    """

    kind: Literal["sidelink"] = Field(description="sidelink: device to device, by 3GPP's models.")
    model: Literal["urban", "highway", "d2d"] = Field(
        description="urban: vehicles in a city (3GPP TR 37.885, 6.2). highway: vehicles on a highway (TR "
        "37.885, 6.2). d2d: devices outdoors (TR 36.843, A.2.1.2)."
    )
    frequency_hz: Positive = Field(
        description="The carrier frequency in hertz: 0.5 to 100 GHz, for d2d 0.45 to 6 GHz."
    )

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        yield "3gpp36843" if self.model == "d2d" else "3gpp37885"

    def conflicts_of(self, direction: str, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts_of(direction, scenario)
        yield from self._frequency(self.model, self.frequency_hz)
