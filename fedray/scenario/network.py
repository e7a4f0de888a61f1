"""`network`: what a round costs. Rates in bits per second, decimal; energy in joules; places in metres, the
server's at (0, 0)."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Discriminator, Field

from fedray.scenario.base import Positive, Refused, Section
from fedray.scenario.cell import Cell
from fedray.scenario.device import ComputeDevice, DeviceSection, Mix, Processor
from fedray.scenario.gains import Gains
from fedray.scenario.kinds import OpenKind
from fedray.scenario.links import FixedLink, LinkSection, TraceLink
from fedray.scenario.over_the_air import OverTheAir, superposed_conflicts
from fedray.scenario.radio import LogDistance, Sidelink, Tr38901
from fedray.scenario.recorded import AvailabilityTrace, RecordedDevice, RecordedLink

DIRECTIONS = ("uplink", "downlink", "sidelink")
AnyLink = FixedLink | TraceLink | LogDistance
CellLink = Annotated[
    AnyLink | RecordedLink | Tr38901 | Gains | OverTheAir, Discriminator("kind"), OpenKind("link")
]
Device = Annotated[Processor | Mix | RecordedDevice, Discriminator("kind"), OpenKind("device")]
DeviceLink = Annotated[AnyLink | Sidelink, Discriminator("kind"), OpenKind("link")]


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
    backhaul: FixedLink | None = Field(
        default=None,
        description="Between an edge server and the server of a hierarchy (topology.kind hierarchical), each "
        "edge server over its own. None: there are no edge servers.",
    )
    availability: AvailabilityTrace | None = Field(
        default=None,
        description="When each client is there. None: always, or by the chance of its device "
        "(network.device.availability).",
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
    def devices(self) -> list[DeviceSection]:
        """The devices that clients may have."""
        return self.device.devices

    @property
    def links(self) -> dict[str, LinkSection]:
        """By direction."""
        return {direction: getattr(self, direction) for direction in DIRECTIONS}

    @property
    def slows_devices(self) -> bool:
        """Whether devices compute as slowly as the deadline lets them."""
        return self.save_energy or self.uplink.slows_devices

    @property
    def may_lose(self) -> bool:
        """Whether a transfer may never arrive."""
        return any(link.may_lose for link in self.links.values())

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if (needy := [d for d, link in self.links.items() if link.needs_places]) and self.cell is None:
            expected = f"where devices are, since {' and '.join(needy)} depend on it"
            yield Refused("network.cell", "nothing", expected)
        for direction, link in self.links.items():
            for refused in link.conflicts_of(direction, scenario):
                yield refused.within(f"network.{direction}")
        if self.uplink.superposes:
            yield from superposed_conflicts(scenario)
        if self.backhaul is not None and isinstance(self.backhaul.rate_bps, list):
            yield Refused("network.backhaul.rate_bps", "a list", "one rate, for each edge server")
        if self.save_energy and not self.uplink.has_chosen_power:
            expected = (
                "a radio uplink, allocation equal, without outage_db or harq: its power is chosen, and with"
                " it what is lost"
            )
            yield Refused("network.save_energy", "true", expected)
        if self.slows_devices:
            yield from self._slowing(scenario)
        for what, usual in (("availability", 1.0), ("dropout", 0.0)):
            if (got := getattr(self.server, what)) != usual:
                expected = f"{usual:g}: without its server there is no round"
                yield Refused(f"network.server.{what}", got, expected)

    def _slowing(self, scenario: Any) -> Iterator[Refused]:
        """What chosen frequencies cannot go with."""
        if self.save_energy:
            key = "network.save_energy"
            got = "true"
        else:
            key = "network.uplink.allocation"
            got = self.uplink.allocation.kind  # type: ignore[union-attr]
        if not scenario.topology.plans_by_client:
            expected = "topology.kind parallel: it plans one turn and one uplink a client"
            yield Refused(key, f"{got} for a {scenario.topology.kind}", expected)
        if self.deadline_s is None:
            yield Refused(key, f"{got} without a deadline", "network.deadline_s, which it makes use of")
        fixed = next((device for device in self.devices if not device.scales_frequency), None)
        if fixed is not None:
            expected = "devices of kind cpu, whose energy depends on their frequency"
            yield Refused(key, f"{got} for a {fixed.kind}", expected)
        augmentation = scenario.augmentation
        if augmentation is not None and augmentation.prompts.trial_round:
            expected = "none: one uplink a client is planned, and scores are a second one"
            yield Refused("augmentation.prompts", f"evidence with {key}", expected)
