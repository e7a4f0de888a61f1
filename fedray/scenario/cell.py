"""`network.cell`: where devices are, in metres; the server is at (0, 0)."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import FilePath, NotNegative, Positive, Refused, Section

Metres = Annotated[float, Field(allow_inf_nan=False)]
Place = Annotated[list[Metres], Field(min_length=2, max_length=2)]


class PlacementSection(Section):
    """Where devices are when the run starts."""

    kind: str = Field(description="The placement.")

    draws_ways: ClassVar[bool] = False  # whether there is an area in which devices can move about
    # reads where devices are over time, as `module:function` of the section, the scenario's folder, the key
    # of its path and how many clients there are; none: they stand
    read_movement: ClassVar[str | None] = None

    @property
    def nearest_m(self) -> tuple[str, float]:
        """The key that says how near to the server a device may be, and how near."""
        raise NotImplementedError(f"{type(self).__name__} does not say how near a device may be")


class Disc(PlacementSection):
    """Devices at random places, evenly over a disc around the server."""

    kind: Literal["disc"] = Field(description="disc: evenly over a disc around the server.")
    radius_m: Positive = Field(description="The disc's radius in metres.")
    least_m: Positive = Field(
        default=10.0, description="No device is nearer to the server than this, in metres."
    )

    @property
    def nearest_m(self) -> tuple[str, float]:
        return "least_m", self.least_m

    draws_ways: ClassVar[bool] = True

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.least_m >= self.radius_m:
            yield Refused(".least_m", self.least_m, f"less than radius_m, {self.radius_m:g}")


class Line(PlacementSection):
    """Devices one behind the other, as in a platoon, on a road that passes the server: of n clients, client k
    is at (k - (n - 1) / 2) spacing_m along it."""

    kind: Literal["line"] = Field(description="line: one behind the other along a road.")
    spacing_m: Positive = Field(description="Metres from one device to the next.")
    offset_m: Positive = Field(default=35.0, description="Metres from the server to the road.")

    @property
    def nearest_m(self) -> tuple[str, float]:
        return "offset_m", self.offset_m


class Places(PlacementSection):
    """Devices at given places."""

    kind: Literal["places"] = Field(description="places: at given places.")
    at: Annotated[list[Place], Field(min_length=1)] = Field(
        description="A place [x, y] per client, in metres from the server."
    )

    @property
    def nearest_m(self) -> tuple[str, float]:
        distances = [math.hypot(*place) for place in self.at]
        return f"at.{distances.index(min(distances))}", min(distances)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        clients = scenario.population.clients
        if len(self.at) != clients:
            yield Refused(".at", f"{len(self.at)} places", f"one for each of the {clients} clients")
        first: dict[tuple[float, ...], int] = {}
        for k, place in enumerate(self.at):
            there = first.setdefault(tuple(place), k)
            if place == [0.0, 0.0]:
                got = "0 m from the server, which is at (0, 0)"
                yield Refused(f".at.{k}", got, "a distance above 0")
            elif there < k:
                yield Refused(f".at.{k}", f"0 m from client {there}", "a distance above 0")


class RecordedMovement(PlacementSection):
    """Devices that move as a file says."""

    path: FilePath = Field(description="The file, relative to the scenario's file, or shipped:NAME.")
    server_m: Place = Field(
        default=[0.0, 0.0], description="Where the server stands in the file's coordinates, in metres."
    )
    least_m: Positive = Field(
        default=10.0,
        description="How near to the server a device's way may lead, in metres. A file with a nearer one is "
        "refused.",
    )

    @property
    def nearest_m(self) -> tuple[str, float]:
        return "least_m", self.least_m


class Sumo(RecordedMovement):
    """Devices that are vehicles or persons of SUMO's fcd-output, in a straight line from one time step to the
    next. The file is repeated from the run's start to its end: after its last time step everybody is where
    the first has them."""

    kind: Literal["sumo"] = Field(description="sumo: as the fcd-output of SUMO says.")
    from_s: NotNegative | None = Field(
        default=None, description="The file's second at which the run starts. None: its first time step."
    )
    until_s: NotNegative | None = Field(
        default=None, description="The file's second up to which it is read. None: its last time step."
    )
    vehicles: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None,
        description="The ids of vehicles or persons, one per client, each in every time step. None: the "
        "first, in the file's order, of those that are in every time step.",
    )

    cites: ClassVar[tuple[str, ...]] = ("lopez2018microscopic",)
    read_movement: ClassVar[str | None] = "fedray.network.sumo:read_sumo"
    verify_inputs: ClassVar[str | None] = "fedray.network.sumo:read_sumo"

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.until_s is not None and self.until_s <= (self.from_s or 0.0):
            yield Refused(".until_s", f"{self.until_s:g}", f"more than from_s, {self.from_s or 0:g}")
        clients = scenario.population.clients
        if self.vehicles is not None and len(self.vehicles) != clients:
            got = f"{len(self.vehicles)} ids"
            yield Refused(".vehicles", got, f"one for each of the {clients} clients")
        elif self.vehicles is not None and len(set(self.vehicles)) < clients:
            twice = next(name for name in self.vehicles if self.vehicles.count(name) > 1)
            yield Refused(".vehicles", f"{twice!r} twice", "each once")


class Ns2(RecordedMovement):
    """Devices that are the nodes of an ns-2 movement file (setdest, BonnMotion, SUMO's traceExporter): client
    k is $node_(k). Of the file's Tcl only the commands set X_, set Y_ and setdest are read, with numbers;
    nothing is run. A node moves straight ahead at its speed, and stays where its last way ends."""

    kind: Literal["ns2"] = Field(description="ns2: as an ns-2 movement file says.")

    read_movement: ClassVar[str | None] = "fedray.network.ns2:read_ns2"
    verify_inputs: ClassVar[str | None] = "fedray.network.ns2:read_ns2"


class RandomWaypoint(Section):
    """A device moves to a place drawn in the disc, at a speed drawn from a range, pauses, and moves on to the
    next, never nearer to the server than the disc's least_m."""

    kind: Literal["random_waypoint"] = Field(description="random_waypoint: from one drawn place to the next.")
    speed_mps: Annotated[list[Positive], Field(min_length=2, max_length=2)] = Field(
        default=[0.5, 1.5], description="The lowest and the highest speed, in metres per second."
    )
    pause_s: NotNegative = Field(default=0.0, description="Seconds that it stays at each place.")

    cites: ClassVar[tuple[str, ...]] = ("johnson1996dynamic",)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        placement = scenario.network.cell.placement
        if not placement.draws_ways:
            expected = "placement disc, where ways are drawn"
            yield Refused("network.cell.mobility", f"random_waypoint over {placement.kind}", expected)
        if self.speed_mps[0] > self.speed_mps[1]:
            yield Refused(".speed_mps", self.speed_mps, "the lower speed first")


class Cell(Section):
    """Where devices are, and how they move between rounds; within a round nobody moves."""

    placement: Annotated[Disc | Line | Places | Sumo | Ns2, Field(discriminator="kind")] = Field(
        description="Where devices are when the run starts."
    )
    mobility: RandomWaypoint | None = Field(
        default=None, description="How devices move; needs placement disc. None: devices stay where they are."
    )
    server_height_m: Positive = Field(
        default=10.0, description="Metres of the server's antenna above the ground."
    )
    device_height_m: Positive = Field(
        default=1.5, description="Metres of a device's antenna above the ground."
    )
