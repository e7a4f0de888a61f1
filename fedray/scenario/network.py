"""`network`: what a round costs. Rates in bits per second, decimal; energy in joules."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import NotNegative, Positive, Section


class FixedLink(Section):
    """A link of constant rate: `latency_s + 8 bytes / rate_bps` seconds a transfer.

    `rate_bps` is one rate, one a client (uplink, downlink), or a table of a row a sender and a column a receiver
    (sidelink, its diagonal ignored). Radio energy is power times time on the air; 0.2 W is 23 dBm, power class 3 of
    3GPP TS 38.101.
    """

    kind: Literal["fixed"]
    rate_bps: Positive | Annotated[list[Positive], Field(min_length=1)] | Annotated[list[list[Positive]], Field(min_length=1)]
    latency_s: NotNegative = 0.0
    transmit_w: NotNegative = 0.2
    receive_w: NotNegative = 0.0


class FlopsDevice(Section):
    """A device that computes `peak_flops * utilisation` floating-point operations a second, at `active_w` watts."""

    kind: Literal["flops"]
    peak_flops: Positive
    utilisation: Annotated[float, Field(gt=0, le=1)] = 1.0
    active_w: NotNegative


class Network(Section):
    uplink: FixedLink
    downlink: FixedLink
    sidelink: FixedLink
    device: FlopsDevice
    server: FlopsDevice
