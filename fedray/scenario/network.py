"""`network`: what a round costs. Rates in bits per second, decimal; energy in joules; places in metres, the
server's at (0, 0)."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from fedray.scenario.base import Positive, Refused, Section
from fedray.scenario.cell import Cell, Disc, Places
from fedray.scenario.device import ComputeDevice, CpuDevice, Device, Mix
from fedray.scenario.links import FixedLink, TraceLink
from fedray.scenario.radio import LogDistance, Neighbours, RadioLink, Sidelink, Tr38901

DIRECTIONS = ("uplink", "downlink", "sidelink")
ALLOCATIONS = [
    ("downlink", "broadcast"),
    ("uplink", "min_max"),
    ("uplink", "proportional_fair"),
    ("uplink", "blocks"),
]
RANGE_GHZ = {"rma": (0.5, 30.0), "d2d": (0.45, 6.0)}  # that a model is made for; the others 0.5 to 100
LEAST_M = {"umi": 10, "uma": 35, "rma": 35, "inh": 1}  # 3GPP TR 38.901, Table 7.2

CellLink = Annotated[FixedLink | TraceLink | LogDistance | Tr38901, Field(discriminator="kind")]
DeviceLink = Annotated[FixedLink | TraceLink | LogDistance | Sidelink, Field(discriminator="kind")]


class Network(Section):
    """Links, devices and places, which give each round its time and energy."""

    uplink: CellLink = Field(description="From a client to the server.")
    downlink: CellLink = Field(description="From the server to a client.")
    sidelink: DeviceLink = Field(description="From a client to another.")
    device: Device = Field(description="The clients' processors, and what else they have.")
    server: ComputeDevice = Field(description="The server's processor.")
    cell: Cell | None = Field(
        default=None,
        description="Where devices are. None: no places, which radio links need.",
    )
    deadline_s: Positive | None = Field(
        default=None,
        description="Seconds after which a round ends. An update that arrives later is dropped; its time, "
        "bytes and energy still count. None: the round waits for every client.",
    )
    save_energy: bool = Field(
        default=False,
        description="Let each client spend the least energy that still meets deadline_s, by a lower CPU "
        "frequency and less transmit power. Needs devices of kind cpu and a radio uplink of equal shares.",
    )

    @property
    def devices(self) -> list[ComputeDevice]:
        """The kinds that clients may have."""
        return [part.device for part in self.device.of] if isinstance(self.device, Mix) else [self.device]

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
