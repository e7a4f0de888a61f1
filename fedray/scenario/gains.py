"""A link of `network` whose gains are a file's: what ray tracers and channel generators export."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.band import RadioBand
from fedray.scenario.base import FilePath, NotNegative, Refused


class Gains(RadioBand):
    """A radio link whose gains over time are a file's, between clients and one or more cells. The file is
    repeated from the run's start to its end; a transfer has at each moment the rate of that moment's gains.
    A client is served by the strongest cell, and each cell has the band for its own clients."""

    kind: Literal["gains"] = Field(description="gains: gains over time, from a file.")
    path: FilePath = Field(
        description="An npz file, relative to the scenario's file, or shipped:NAME, with the arrays gains_db "
        "[time, client, cell] or [time, client], in dB (minus the path loss; -inf: no path), and time_s "
        "[time], which rises. Row t holds from time_s[t] until the next, the last for as long as the one "
        "before it. Client k has the k-th column."
    )
    load: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0,
        description="The share of the time that the file's other cells send, and are received as "
        "interference. 0: no interference.",
    )
    hysteresis_db: NotNegative = Field(
        default=0.0, description="By how many dB another cell has to be stronger before it takes over."
    )
    time_to_trigger_s: NotNegative = Field(default=0.0, description="For how many seconds it has to be so.")
    fading: Literal["none", "rayleigh", "rician"] = Field(
        default="none",
        description="How the signal varies around the file's gains. none: not at all, the file has it. "
        "rayleigh: Rayleigh, without a line of sight. rician: Rician with rician_k_db. Rates are ergodic.",
    )
    rician_k_db: Annotated[float, Field(allow_inf_nan=False)] = Field(
        default=9.0, description="The K-factor of fading: rician, in dB."
    )

    implementation: ClassVar[str] = "fedray.network.gains:GainsLink"
    several_cells: ClassVar[bool] = True
    verify_inputs: ClassVar[str | None] = "fedray.network.gains:verify"

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.time_to_trigger_s or self.hysteresis_db:
            yield "3gpp38331"

    def conflicts_of(self, direction: str, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts_of(direction, scenario)
        if self.allocation.by_blocks:
            yield Refused(
                ".allocation", self.allocation.kind, "another: a file's gains are those of the whole band"
            )
