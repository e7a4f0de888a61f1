"""`network.cell`: where devices are, in metres; the server is at (0, 0)."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import NotNegative, Positive, Refused, Section

Metres = Annotated[float, Field(allow_inf_nan=False)]


class PlacementSection(Section):
    """Where devices are when the run starts."""

    kind: str = Field(description="The placement.")

    draws_ways: ClassVar[bool] = False  # whether there is an area in which devices can move about

    @property
    def nearest_m(self) -> tuple[str, float]:
        """The key that says how near to the server a device may be, and how near."""
        raise NotImplementedError


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
    at: Annotated[list[Annotated[list[Metres], Field(min_length=2, max_length=2)]], Field(min_length=1)] = (
        Field(description="A place [x, y] per client, in metres from the server.")
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

    placement: Annotated[Disc | Line | Places, Field(discriminator="kind")] = Field(
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
