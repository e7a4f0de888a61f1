"""Links of `network` that are not radio channels: a constant rate, a recorded one."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import FilePath, NotNegative, Positive, Refused
from fedray.scenario.kinds import KindSection

# 23 dBm: power class 3 of 3GPP TS 38.101-1; 46 dBm: a macro base station of TR 36.942, Table 4.6
DEVICE_W = 0.2
BASE_W = 40.0


class LinkSection(KindSection):
    """What others ask of any link's section. The defaults are those of a link of one's own."""

    kind: str = Field(description="The link.")

    needs_places: ClassVar[bool] = False  # whether it depends on where devices are
    fades: ClassVar[bool] = False  # whether a transfer's rate is drawn around a mean
    rate_for_each_pair: ClassVar[bool] = True  # whether one device may be reached faster than another
    # checks one of `files`, as `module:function` of its path, the scenario's folder and its key
    verify_file: ClassVar[str] = "fedray.data.places:verify_file"
    # whether devices compute as slowly as network.deadline_s lets them, by how the link's band is shared
    slows_devices: ClassVar[bool] = False
    has_chosen_power: ClassVar[bool] = False  # whether a sender may choose its power without losing transfers
    several_cells: ClassVar[bool] = False  # whether clients may be served by cells with a band each
    # whether symbols go over its band as they are, so that Link has symbol_transfers and mean_snr_db
    carries_symbols: ClassVar[bool] = False
    # whether the signals of all who send at once add up, and the server receives their sum: an uplink whose
    # Link has symbol_transfers and receive_snr
    superposes: ClassVar[bool] = False

    @property
    def fades_by_block(self) -> bool:
        """Whether each resource block of a band fades by itself."""
        return False

    @property
    def may_lose(self) -> bool:
        """Whether a transfer may never arrive."""
        return False

    def files(self) -> Sequence[str]:
        """Paths of files that it is read from, at its key `path`."""
        return ()

    def refuse_order(self, key: str, order: str) -> Iterator[Refused]:
        """Why a relay cannot go in an order of rates over it.

        Args:
            key: where the link stands in the scenario.
            order: the relay's.
        """
        if not self.rate_for_each_pair:
            yield Refused(f"{key}.kind", self.kind, f"a link with a rate for each pair, for {order}")

    def conflicts_of(self, direction: str, scenario: Any) -> Iterator[Refused]:
        """What it cannot go with in a direction of the network; keys as in `conflicts`."""
        return iter(())


class ConstantPowerSection(LinkSection):
    """What a link has whose radios take a constant power while they send and receive."""

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


class FixedLink(ConstantPowerSection):
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

    implementation: ClassVar[str] = "fedray.network.fixed:FixedRateLink"

    def refuse_order(self, key: str, order: str) -> Iterator[Refused]:
        if not isinstance(self.rate_bps, list):
            yield Refused(f"{key}.rate_bps", "one rate for all", f"a table of rates for {order}")

    def conflicts_of(self, direction: str, scenario: Any) -> Iterator[Refused]:
        rate = self.rate_bps
        if not isinstance(rate, list):
            return
        clients = scenario.population.clients
        rows = [row for row in rate if isinstance(row, list)]
        table = direction == "sidelink"
        if bool(rows) != table:
            shape = "a table of clients by clients" if table else "a list of one a client"
            yield Refused(".rate_bps", "a table" if rows else "a list", f"one rate, or {shape}")
        elif len(rate) != clients or any(len(row) != clients for row in rows):
            got = f"{len(rate)} {'rows' if rows else 'rates'}"
            yield Refused(".rate_bps", got, f"one for each of the {clients} clients")


class TraceLink(ConstantPowerSection):
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

    implementation: ClassVar[str] = "fedray.network.fixed:TraceDrivenLink"
    cites: ClassVar[tuple[str, ...]] = ("netravali2015mahimahi",)
    rate_for_each_pair: ClassVar[bool] = False
    verify_file: ClassVar[str] = "fedray.network.fixed:read_trace"

    def files(self) -> Sequence[str]:
        return self.paths

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path
