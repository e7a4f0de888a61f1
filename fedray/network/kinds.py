"""Which class implements each kind of link and device."""

from typing import Any

from fedray.network.channel import RadioChannel
from fedray.network.devices import CycleDevice, Device, RatedDevice
from fedray.network.fixed import FixedRateLink, TraceDrivenLink
from fedray.network.links import Link, LinkContext
from fedray.scenario.base import Section
from fedray.scenario.device import CpuDevice, FlopsDevice, Profile
from fedray.scenario.network import FixedLink, LogDistance, Sidelink, Tr38901, TraceLink

LINKS: dict[type[Section], type[Link]] = {
    FixedLink: FixedRateLink,
    TraceLink: TraceDrivenLink,
    LogDistance: RadioChannel,
    Tr38901: RadioChannel,
    Sidelink: RadioChannel,
}
DEVICES: dict[type[Section], type[Device]] = {
    FlopsDevice: RatedDevice,
    Profile: RatedDevice,
    CpuDevice: CycleDevice,
}


def open_link(section: Any, context: LinkContext) -> Link:
    return LINKS[type(section)](section, context)


def open_device(section: Any) -> Device:
    return DEVICES[type(section)](section)
