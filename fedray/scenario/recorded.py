"""What was recorded of clients' devices, in files of FedScale's form as JSON: how fast each computes and
sends, and when it is there."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import FilePath, NotNegative, Positive, Section
from fedray.scenario.device import DeviceSection
from fedray.scenario.links import ConstantPowerSection

CAPACITIES = (
    "A JSON file, relative to the scenario's file: an object of devices by name, or a list of them, each "
    'with {"computation": milliseconds a sample, "communication": kilobits a second}, as FedScale has them. '
    "Client k has the k-th device, and from the beginning again."
)


class RecordedDevice(DeviceSection):
    """A device for each client, as fast as it was measured: an operation takes
    `computation / 1000 / flops_per_sample` seconds. Its energy is power times time."""

    kind: Literal["recorded"] = Field(description="recorded: a device for each client, from a file.")
    path: FilePath = Field(description=CAPACITIES)
    flops_per_sample: Positive = Field(
        description="Floating-point operations of what was timed, a sample: those of a forward pass, where "
        "`computation` is the latency of inference."
    )
    active_w: NotNegative = Field(default=0.0, description="Watts while it computes.")

    implementation: ClassVar[str] = "fedray.network.recorded:RecordedDevice"
    verify_inputs: ClassVar[str | None] = "fedray.network.recorded:verify_capacities"
    cites: ClassVar[tuple[str, ...]] = ("lai2022fedscale",)


class RecordedLink(ConstantPowerSection):
    """A link of a constant rate for each client, as it was measured."""

    kind: Literal["recorded"] = Field(description="recorded: a rate for each client, from a file.")
    path: FilePath = Field(description=CAPACITIES)

    implementation: ClassVar[str] = "fedray.network.recorded:RecordedRateLink"
    rate_for_each_pair: ClassVar[bool] = False
    verify_inputs: ClassVar[str | None] = "fedray.network.recorded:verify_capacities"
    cites: ClassVar[tuple[str, ...]] = ("lai2022fedscale",)


class AvailabilityTrace(Section):
    """When each client is there, as it was recorded. A client can be selected while it is there, and what it
    does when it leaves comes to nothing, with all that would follow in that round. Where nobody is there the
    server waits."""

    path: FilePath = Field(
        description="A JSON file, relative to the scenario's file: an object of devices by name, or a list "
        'of them, each with {"active": [...], "inactive": [...], "finish_time": ...} in seconds, as FedScale '
        "has them: it comes at active[i] and leaves at inactive[i], and all begins anew after finish_time. "
        "Client k has the k-th device, and from the beginning again."
    )
    start_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0.0, description="The file's second at which the run begins."
    )

    verify_inputs: ClassVar[str | None] = "fedray.network.presence:verify"
    cites: ClassVar[tuple[str, ...]] = ("lai2022fedscale",)
