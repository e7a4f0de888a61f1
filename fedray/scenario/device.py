"""`network.device` and `network.server`: what it takes to compute."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field

from fedray.scenario.base import NotNegative, Positive, Section
from fedray.scenario.kinds import KindSection, OpenKind
from fedray.shipped import devices


class DeviceSection(KindSection):
    """What every device has beside its processor."""

    kind: str = Field(description="The device.")

    memory_bytes: Positive | None = Field(
        default=None, description="The memory that a model must fit into, in bytes. None: no limit."
    )
    transmit_dbm: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None,
        description="The power of its transmitter in dBm, where the link gives none. None: for a device 23 "
        "(power class 3 of 3GPP TS 38.101-1), for the server that of a base station: 46, or 43 on at most 5 "
        "MHz (TR 36.942, Table 4.6); on a link of kind 3gpp 44 for umi, 49 for uma and rma, 35 for these "
        "above 6 GHz, and 24 for inh (TR 38.901, Table 7.8-1).",
    )
    idle_w: NotNegative = Field(
        default=0.0, description="Watts while it takes part in a round and neither computes nor sends."
    )
    availability: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="The probability that it can be selected in a round."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="The probability that it vanishes in the middle of a local update."
    )

    scales_frequency: ClassVar[bool] = False  # whether its energy depends on a frequency that it may choose

    @property
    def devices(self) -> list["DeviceSection"]:
        """The devices that clients may have."""
        return [self]


class FlopsDevice(DeviceSection):
    """t = FLOPs / (peak_flops utilisation), E = active_w t."""

    kind: Literal["flops"] = Field(description="flops: time and energy from FLOPs per second and watts.")
    peak_flops: Positive = Field(description="The processor's peak, in FLOPs per second.")
    utilisation: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="The share of the peak that is reached."
    )
    active_w: NotNegative = Field(description="Watts while it computes.")

    implementation: ClassVar[str] = "fedray.network.devices:RatedDevice"


class CpuDevice(DeviceSection):
    """The CPU-cycle form: t = C / f and E = kappa C f^2, for C = FLOPs / flops_per_cycle cycles (Burd and
    Brodersen 1996)."""

    kind: Literal["cpu"] = Field(description="cpu: time and energy from clock cycles.")
    frequency_hz: Positive = Field(description="The highest clock frequency f, in hertz.")
    flops_per_cycle: Positive = Field(default=1.0, description="FLOPs per clock cycle.")
    kappa: Positive = Field(
        default=1e-28, description="The effective switched capacitance kappa in E = kappa C f^2."
    )
    second_w: Positive | None = Field(
        default=None,
        description="How many joules one second saved is worth. f is then (second_w / (2 kappa))^(1/3), "
        "where that is below frequency_hz. None: the highest frequency.",
    )

    implementation: ClassVar[str] = "fedray.network.devices:CycleDevice"
    cites: ClassVar[tuple[str, ...]] = ("burd1996processor",)
    scales_frequency: ClassVar[bool] = True


def _known(name: str) -> str:
    if name not in devices():
        raise ValueError(f"one of {', '.join(devices())}")
    return name


class Profile(DeviceSection):
    """A device by its name, with the figures of its maker's data sheet (`fedray/shipped/devices.json`)."""

    kind: Literal["profile"] = Field(description="profile: a known device, by its name.")
    name: Annotated[str, AfterValidator(_known)] = Field(description=f"The device: {', '.join(devices())}.")
    utilisation: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.4, description="The share of the data sheet's peak that is reached."
    )

    implementation: ClassVar[str] = "fedray.network.devices:RatedDevice"


Processor = FlopsDevice | CpuDevice | Profile
ComputeDevice = Annotated[Processor, Discriminator("kind"), OpenKind("device")]


class Share(Section):
    """One of the devices of a mix."""

    share: Positive = Field(description="How frequent it is, in proportion to the others' shares.")
    device: ComputeDevice = Field(description="The device.")


class Mix(Section):
    """Several devices; each client's is drawn once, from the seed."""

    kind: Literal["mix"] = Field(description="mix: clients of several devices.")
    of: Annotated[list[Share], Field(min_length=1)] = Field(description="The devices and their shares.")

    @property
    def devices(self) -> list[DeviceSection]:
        """The devices that clients may have."""
        return [part.device for part in self.of]
