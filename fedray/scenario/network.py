"""`network`: what a round costs. Rates in bits per second, decimal; energy in joules; places in metres, the
server's at (0, 0)."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Count, FilePath, Fraction, NotNegative, Positive, Refused, Section
from fedray.scenario.device import ComputeDevice, CpuDevice, Device, Mix

DIRECTIONS = ("uplink", "downlink", "sidelink")
ALLOCATIONS = [
    ("downlink", "broadcast"),
    ("uplink", "min_max"),
    ("uplink", "proportional_fair"),
    ("uplink", "blocks"),
]
RANGE_GHZ = {"rma": (0.5, 30.0), "d2d": (0.45, 6.0)}  # that a model is made for; the others 0.5 to 100
LEAST_M = {"umi": 10, "uma": 35, "rma": 35, "inh": 1}  # 3GPP TR 38.901, Table 7.2
BLOCK_HZ = 180e3  # twelve subcarriers of 15 kHz (3GPP TS 38.211, 4.4.4.1)

# 23 dBm: power class 3 of 3GPP TS 38.101-1; 46 dBm: a macro base station of TR 36.942, Table 4.6
DEVICE_W, BASE_W = 0.2, 40.0
Metres = Annotated[float, Field(allow_inf_nan=False)]


class FixedLink(Section):
    """A link of constant rate: `latency_s + 8 bytes / rate_bps` seconds a transfer.

    `rate_bps` is one rate, one a client (uplink, downlink), or a table of a row a sender and a column a
    receiver (sidelink, its diagonal ignored). Radio energy is power times time on the air.
    """

    kind: Literal["fixed"]
    rate_bps: (
        Positive
        | Annotated[list[Positive], Field(min_length=1)]
        | Annotated[list[list[Positive]], Field(min_length=1)]
    )
    latency_s: NotNegative = 0.0
    # None: a device's 0.2 (23 dBm); on a downlink a base station's 40 (46 dBm), shared out among those it
    # sends to at once.
    transmit_w: NotNegative | None = None
    receive_w: NotNegative = 0.0


class TraceLink(Section):
    """A link that was recorded: a file in mahimahi's format, a line for every 1500 bytes that could be
    delivered, with the millisecond when. It is played over and over from the run's start; clients (senders,
    on a sidelink) take several files in turn."""

    kind: Literal["trace"]
    path: FilePath | Annotated[list[FilePath], Field(min_length=1)]
    # each client begins at a place of its trace that is drawn, not all at the first line
    spread: bool = False
    latency_s: NotNegative = 0.0
    # None: a device's 0.2 (23 dBm); on a downlink a base station's 40 (46 dBm), shared out among those it
    # sends to at once.
    transmit_w: NotNegative | None = None
    receive_w: NotNegative = 0.0

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


class Level(Section):
    """Interference of one power over the whole band, at every receiver."""

    kind: Literal["level"]
    dbm: Annotated[float, Field(allow_inf_nan=False)]


class Neighbours(Section):
    """Six cells around this one, whose base stations (downlink) and devices (uplink) send for the share
    `load` of the time, with the power and over the channel of this cell's own."""

    kind: Literal["neighbours"]
    load: Annotated[float, Field(gt=0, le=1)]
    distance_m: Positive  # between base stations


class RadioLink(Section):
    """What every radio channel has: power, noise, fading, and how a signal-to-noise ratio becomes a rate.

    On its way up and between devices a sender has all its power for its share of the band; a base station
    shares its own out with its band. Who is so far that fewer resource blocks carry more sends over fewer,
    down to one. The mean signal-to-noise ratio is that of the path, antennas and shadowing.
    """

    bandwidth_hz: Positive
    # none: the sender's (a device's own, or 23; a base station's)
    transmit_dbm: Annotated[float, Field(allow_inf_nan=False)] | None = None
    antenna_gain_db: Annotated[float, Field(allow_inf_nan=False)] = 0.0  # of both ends together
    noise_figure_db: NotNegative | None = None  # 5 at the base station, 9 at a device
    interference: Annotated[Level | Neighbours, Field(discriminator="kind")] | None = None
    # model: Rician with the channel's own K in line of sight, Rayleigh without. A transfer much longer than
    # the coherence time 0.423 c / (v f) has the ergodic rate, a short one draws its blocks.
    fading: Literal["model", "none", "rayleigh", "rician"] = "model"
    rician_k_db: Annotated[float, Field(allow_inf_nan=False)] = 9.0
    speed_mps: Positive = 0.83  # 3 km/h, of a device or of what stands around it
    # shannon: log2(1 + g). truncated: 0.75 of that, nothing below -10 dB (see network.rates). nr_mcs: the
    # modulation and coding scheme with at most 10% block errors (TS 38.214, through Sionna). The last two end
    # where `modulation` does.
    rate: Literal["shannon", "truncated", "nr_mcs"] = "truncated"
    modulation: Literal["64qam", "256qam"] = "64qam"
    overhead: Fraction = 0.0  # of the band, for control and pilots
    block_error: Fraction = 0.0  # of blocks, sent again until they are through; nr_mcs has its own
    # none: as over RLC in acknowledged mode, what is not through is sent until it is. Or, as in
    # unacknowledged mode, a block (what a slot of 1 ms carries) is sent at most so many times, and a transfer
    # of n of them is lost with 1 - (1 - block_error^harq)^n.
    harq: Count | None = None
    # a try whose faded signal is weaker is in vain
    outage_db: Annotated[float, Field(allow_inf_nan=False)] | None = None
    attempts: Annotated[int, Field(ge=1, le=100)] = 1  # tries before a transfer is lost; all are charged
    # equal: the same share for all who send at once. broadcast: all hear the whole band (downlink). min_max:
    # they finish together. proportional_fair: the greatest product of rates. blocks: resource blocks to those
    # whom each serves best.
    allocation: Literal["equal", "broadcast", "min_max", "proportional_fair", "blocks"] = "equal"
    latency_s: NotNegative = 0.0
    amplifier_efficiency: Annotated[float, Field(gt=0, le=1)] = 1.0
    circuit_w: NotNegative = 0.0  # of a sender, beside its amplifier
    receive_w: NotNegative = 0.0


class LogDistance(RadioLink):
    """Path loss `loss_db + 10 exponent log10(d / at_m)`, by default the literature's 128.1 + 37.6 log10(d /
    km), and log-normal shadowing with an exponential correlation over places (Gudmundson 1991)."""

    kind: Literal["log_distance"]
    frequency_hz: Positive = 2.0e9  # for the coherence time alone
    loss_db: Positive = 128.1
    at_m: Positive = 1000.0
    exponent: Positive = 3.76
    shadowing_db: NotNegative = 8.0
    correlation_m: Positive = 50.0


class Tr38901(RadioLink):
    """3GPP TR 38.901 through Sionna: line of sight, path loss, correlated shadowing and K-factor of outdoor
    devices (those of an office for inh)."""

    kind: Literal["3gpp"]
    model: Literal["umi", "uma", "rma", "inh"]
    frequency_hz: Positive


class Sidelink(RadioLink):
    """Device to device: `urban` and `highway` of 3GPP TR 37.885, 6.2, or `d2d`, outdoors to outdoors of TR
    36.843, A.2.1.2. A K-factor is its table's mean.

    Between vehicles a pair has a line of sight or, by TR 37.885's chance, a vehicle as high as the antennas
    in the way (NLOSv), which adds a loss of its own draw. Buildings round a corner (NLOS) are not modelled.
    """

    kind: Literal["sidelink"]
    model: Literal["urban", "highway", "d2d"]
    frequency_hz: Positive


class Disc(Section):
    """Evenly over a disc around the server, no nearer than `least_m`."""

    kind: Literal["disc"]
    radius_m: Positive
    least_m: Positive = 10.0

    @property
    def nearest_m(self) -> tuple[str, float]:
        """The key that says how near to the server somebody may be, and how near."""
        return "least_m", self.least_m


class Line(Section):
    """One behind the other, as in a platoon: client k at (k - (n - 1) / 2) spacing_m along a road that passes
    the server at `offset_m`."""

    kind: Literal["line"]
    spacing_m: Positive
    offset_m: Positive = 35.0

    @property
    def nearest_m(self) -> tuple[str, float]:
        return "offset_m", self.offset_m


class Places(Section):
    kind: Literal["places"]
    at: Annotated[list[Annotated[list[Metres], Field(min_length=2, max_length=2)]], Field(min_length=1)]

    @property
    def nearest_m(self) -> tuple[str, float]:
        distances = [math.hypot(*place) for place in self.at]
        return f"at.{distances.index(min(distances))}", min(distances)


class RandomWaypoint(Section):
    """To a place drawn in the disc, at a speed drawn from a range, a pause, and on to the next, never through
    the inner circle."""

    kind: Literal["random_waypoint"]
    speed_mps: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [0.5, 1.5]
    pause_s: NotNegative = 0.0


class Cell(Section):
    """Where devices are."""

    placement: Annotated[Disc | Line | Places, Field(discriminator="kind")]
    mobility: RandomWaypoint | None = None  # none: nobody moves
    server_height_m: Positive = 10.0
    device_height_m: Positive = 1.5


CellLink = Annotated[FixedLink | TraceLink | LogDistance | Tr38901, Field(discriminator="kind")]
DeviceLink = Annotated[FixedLink | TraceLink | LogDistance | Sidelink, Field(discriminator="kind")]


class Network(Section):
    uplink: CellLink
    downlink: CellLink
    sidelink: DeviceLink
    device: Device
    server: ComputeDevice
    cell: Cell | None = None  # for links that depend on places
    deadline_s: Positive | None = None  # of a parallel round: what comes later is dropped, and charged
    # Each client takes the least energy that still meets the deadline: a lower CPU frequency, less transmit
    # power.
    save_energy: bool = False

    @property
    def devices(self) -> list[ComputeDevice]:
        """The kinds that clients may have."""
        return [part.device for part in self.device.of] if isinstance(self.device, Mix) else [self.device]

    @property
    def has_sidelink_range(self) -> bool:
        """Whether devices may be too far from each other to send."""
        return isinstance(self.sidelink, RadioLink)

    @property
    def loses(self) -> bool:
        """Whether a transfer may never arrive."""
        links = [link for d in DIRECTIONS if isinstance(link := getattr(self, d), RadioLink)]
        return any(link.outage_db is not None or link.harq is not None for link in links)

    def refused(self, clients: int) -> Iterator[Refused]:
        """What does not go together within the section, for so many clients."""
        radio = {d: link for d in DIRECTIONS if isinstance(link := getattr(self, d), RadioLink)}
        if radio and self.cell is None:
            yield Refused(
                "network.cell", "nothing", f"where devices are, since {' and '.join(radio)} depend on it"
            )
        if self.cell is not None:
            yield from self._placed(self.cell, clients)
        for direction, link in radio.items():
            key = f"network.{direction}"
            if isinstance(link, Tr38901 | Sidelink):
                low, high = RANGE_GHZ.get(link.model, (0.5, 100.0))
                if not low <= link.frequency_hz / 1e9 <= high:
                    yield Refused(
                        f"{key}.frequency_hz",
                        f"{link.frequency_hz:g}",
                        f"{low:g} to {high:g} GHz for {link.model}",
                    )
            if isinstance(link, Tr38901) and self.cell is not None:
                name, nearest = self.cell.placement.nearest_m
                if nearest < (least := LEAST_M[link.model]):
                    yield Refused(
                        f"network.cell.placement.{name}",
                        f"{nearest:g}",
                        f"at least {least}, the nearest of {link.model}",
                    )
            if link.attempts > 1 and link.outage_db is None:
                yield Refused(
                    f"{key}.attempts", link.attempts, "outage_db beside it: without one no try is in vain"
                )
            if isinstance(link.interference, Neighbours) and direction == "sidelink":
                yield Refused(
                    f"{key}.interference", "neighbours", "a level: between devices there are no cells"
                )
            if (direction, link.allocation) not in ALLOCATIONS and link.allocation != "equal":
                fits = " or ".join(["equal", *(how for d, how in ALLOCATIONS if d == direction)])
                yield Refused(f"{key}.allocation", link.allocation, f"{fits} for a {direction}")
        for direction in DIRECTIONS:
            if isinstance(link := getattr(self, direction), FixedLink):
                yield from self._rates(f"network.{direction}.rate_bps", link.rate_bps, clients)
        if self.save_energy:
            yield from self._saving()
        for what, usual in (("availability", 1.0), ("dropout", 0.0)):
            if (got := getattr(self.server, what)) != usual:
                yield Refused(
                    f"network.server.{what}", got, f"{usual:g}: without its server there is no round"
                )

    def _placed(self, cell: Cell, clients: int) -> Iterator[Refused]:
        placement = cell.placement
        if isinstance(placement, Places):
            if len(placement.at) != clients:
                yield Refused(
                    "network.cell.placement.at",
                    f"{len(placement.at)} places",
                    f"one for each of the {clients} clients",
                )
            first: dict[tuple[float, ...], int] = {}
            for k, place in enumerate(placement.at):
                there = first.setdefault(tuple(place), k)
                if place == [0.0, 0.0]:
                    yield Refused(
                        f"network.cell.placement.at.{k}",
                        "0 m from the server, which is at (0, 0)",
                        "a distance above 0",
                    )
                elif there < k:
                    yield Refused(
                        f"network.cell.placement.at.{k}", f"0 m from client {there}", "a distance above 0"
                    )
        if isinstance(placement, Disc) and placement.least_m >= placement.radius_m:
            yield Refused(
                "network.cell.placement.least_m",
                placement.least_m,
                f"less than radius_m, {placement.radius_m:g}",
            )
        if cell.mobility is not None:
            if not isinstance(placement, Disc):
                yield Refused(
                    "network.cell.mobility",
                    f"random_waypoint over {placement.kind}",
                    "placement disc, where ways are drawn",
                )
            if cell.mobility.speed_mps[0] > cell.mobility.speed_mps[1]:
                yield Refused(
                    "network.cell.mobility.speed_mps", cell.mobility.speed_mps, "the lower speed first"
                )

    def _rates(
        self, key: str, rate: float | list[float] | list[list[float]], clients: int
    ) -> Iterator[Refused]:
        if not isinstance(rate, list):
            return
        rows, table = [row for row in rate if isinstance(row, list)], "sidelink" in key
        if bool(rows) != table:
            shape = "a table of clients by clients" if table else "a list of one a client"
            yield Refused(key, "a table" if rows else "a list", f"one rate, or {shape}")
        elif len(rate) != clients or any(len(row) != clients for row in rows):
            yield Refused(
                key, f"{len(rate)} {'rows' if rows else 'rates'}", f"one for each of the {clients} clients"
            )

    def _saving(self) -> Iterator[Refused]:
        if self.deadline_s is None:
            yield Refused(
                "network.save_energy", "true without a deadline", "network.deadline_s, which it makes use of"
            )
        for device in self.devices:
            if not isinstance(device, CpuDevice):
                yield Refused(
                    "network.save_energy",
                    f"true for a {device.kind}",
                    "devices of kind cpu, whose energy depends on their frequency",
                )
                break
        up = self.uplink
        if not (
            isinstance(up, RadioLink)
            and up.allocation == "equal"
            and up.outage_db is None
            and up.harq is None
        ):
            expected = (
                "a radio uplink, allocation equal, without outage_db or harq: its power is chosen, and with"
                " it what is lost"
            )
            yield Refused("network.save_energy", "true", expected)
