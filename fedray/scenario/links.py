"""Links of `network` that are not radio channels: a constant rate, a recorded one."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import FilePath, NotNegative, Positive, Section

# 23 dBm: power class 3 of 3GPP TS 38.101-1; 46 dBm: a macro base station of TR 36.942, Table 4.6
DEVICE_W, BASE_W = 0.2, 40.0


class FixedLink(Section):
    """A link of constant rate: a transfer takes `latency_s + 8 bytes / rate_bps` seconds. Its energy is power
    times time on the air."""

    kind: Literal["fixed"] = Field(description="fixed: a constant rate.")
    rate_bps: (
        Positive
        | Annotated[list[Positive], Field(min_length=1)]
        | Annotated[list[list[Positive]], Field(min_length=1)]
    ) = Field(
        description="Bits per second: one rate for all; on an uplink or downlink also a list of one rate "
        "per client; on a sidelink also a table with a row per sender and a column per receiver, whose "
        "diagonal is ignored."
    )
    latency_s: NotNegative = Field(default=0.0, description="Seconds before the first bit of a transfer.")
    transmit_w: NotNegative | None = Field(
        default=None,
        description="Watts of the sender's radio while it sends. None: 0.2 (23 dBm, power class 3 of 3GPP "
        "TS 38.101-1) for a device; on a downlink 40 (46 dBm, a macro base station of TR 36.942, Table "
        "4.6), shared out among those it sends to at once.",
    )
    receive_w: NotNegative = Field(
        default=0.0, description="Watts of the receiver's radio while it receives."
    )


class TraceLink(Section):
    """A link that was recorded: a file in mahimahi's format, a line for every 1500 bytes that could be
    delivered, with the millisecond at which. It is repeated from the run's start to its end."""

    kind: Literal["trace"] = Field(description="trace: a recorded link.")
    path: FilePath | Annotated[list[FilePath], Field(min_length=1)] = Field(
        description="The file, relative to the scenario's file, or shipped:NAME. Of a list of files, client "
        "k has the k-th, and from the beginning again; on a sidelink a sender has its own."
    )
    spread: bool = Field(
        default=False,
        description="Let each client begin at a random place of its trace, not all at the first line.",
    )
    latency_s: NotNegative = Field(default=0.0, description="Seconds before the first bit of a transfer.")
    transmit_w: NotNegative | None = Field(
        default=None,
        description="Watts of the sender's radio while it sends. None: 0.2 (23 dBm, power class 3 of 3GPP "
        "TS 38.101-1) for a device; on a downlink 40 (46 dBm, a macro base station of TR 36.942, Table "
        "4.6), shared out among those it sends to at once.",
    )
    receive_w: NotNegative = Field(
        default=0.0, description="Watts of the receiver's radio while it receives."
    )

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path
