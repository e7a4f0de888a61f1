"""`ledger.consensus`: several edge servers agree on each round's head (Huang et al. 2023, Sec. V-B, want a
ledger that stands without trust in one)."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import NotNegative, Positive, Refused, Section


class Pbft(Section):
    """Practical Byzantine fault tolerance (Castro and Liskov 1999) among edge servers, which are linked with
    each other and with the server. A round ends when a quorum of them has signed its head."""

    cites: ClassVar[tuple[str, ...]] = ("castro1999practical",)

    kind: Literal["pbft"] = Field(description="pbft: three phases of messages, and a change of view.")
    validators: Annotated[int, Field(ge=4, le=40)] = Field(
        default=4, description="How many edge servers: n. The greatest f with n > 3 f may be faulty."
    )
    rate_bps: Positive = Field(
        default=1.0e9, description="Of each one's link out, over which its messages follow each other."
    )
    latency_s: NotNegative = Field(default=0.005, description="Of each message, in seconds.")
    timeout_s: Positive = Field(
        default=1.0,
        description="How long an edge server waits for a view before it asks for the next one; twice as long "
        "for each one after it.",
    )
    silent: list[int] = Field(default=[], description="Faulty edge servers, by number, that send nothing.")
    equivocating: list[int] = Field(
        default=[],
        description="Faulty edge servers, by number, that tell half of the others of another head.",
    )

    @property
    def tolerated(self) -> int:
        """How many may be faulty."""
        return (self.validators - 1) // 3

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        for key in ("silent", "equivocating"):
            numbers: list[int] = getattr(self, key)
            if strangers := [i for i in numbers if not 0 <= i < self.validators]:
                expected = f"edge servers 0 to {self.validators - 1}"
                yield Refused(f".{key}", f"edge server {strangers[0]}", expected)
        if both := sorted(set(self.silent) & set(self.equivocating)):
            yield Refused(".equivocating", f"edge server {both[0]}, which is silent", "one of both")
        faulty = len({*self.silent, *self.equivocating})
        if faulty > self.tolerated:
            expected = f"at most {self.tolerated} of {self.validators}: with more nothing is agreed on"
            yield Refused(".silent", f"{faulty} edge servers that are silent or equivocating", expected)
        least_s = 4 * self.latency_s
        if self.timeout_s <= least_s:
            expected = f"more than {least_s:g} s, four times latency_s, which an agreement takes at least"
            yield Refused(".timeout_s", self.timeout_s, expected)
