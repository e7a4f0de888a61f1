"""`network.device` and `network.server`: what it takes to compute."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fedray.scenario.base import NotNegative, Positive, Section
from fedray.shipped import devices


class Owned(Section):
    """What every device has beside its processor."""

    memory_bytes: Positive | None = None  # that a model must fit into
    # Of its radio, where its link gives none. None: 23, and for the server that of a base station.
    transmit_dbm: Annotated[float, Field(allow_inf_nan=False)] | None = None
    idle_w: NotNegative = 0.0  # while it takes part in a round and neither computes nor sends
    availability: Annotated[float, Field(gt=0, le=1)] = 1.0  # the chance of a round that it can be asked
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # the chance of a turn that it vanishes within it


class FlopsDevice(Owned):
    """t = FLOPs / (peak_flops utilisation), E = active_w t."""

    kind: Literal["flops"]
    peak_flops: Positive
    utilisation: Annotated[float, Field(gt=0, le=1)] = 1.0
    active_w: NotNegative


class CpuDevice(Owned):
    """The CPU-cycle form: t = C / f and E = kappa C f^2 for C = FLOPs / flops_per_cycle cycles (Burd and
    Brodersen 1996).

    With `second_w`, the joules that a second saved is worth, f is (second_w / 2 kappa)^(1/3) where that is
    less.
    """

    kind: Literal["cpu"]
    frequency_hz: Positive  # the highest
    flops_per_cycle: Positive = 1.0
    kappa: Positive = 1e-28
    second_w: Positive | None = None


def _known(name: str) -> str:
    if name not in devices():
        raise ValueError(f"one of {', '.join(devices())}")
    return name


class Profile(Owned):
    """A device by its name, with the figures of its maker's data sheet (`fedray/shipped/devices.json`)."""

    kind: Literal["profile"]
    name: Annotated[str, AfterValidator(_known)]
    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.4


ComputeDevice = Annotated[FlopsDevice | CpuDevice | Profile, Field(discriminator="kind")]


class Share(Section):
    share: Positive  # beside the others'
    device: ComputeDevice


class Mix(Section):
    """Several kinds; each client's is drawn once."""

    kind: Literal["mix"]
    of: Annotated[list[Share], Field(min_length=1)]


Device = Annotated[FlopsDevice | CpuDevice | Profile | Mix, Field(discriminator="kind")]
