"""`ledger`: a signed record of every update, which `fedray verify` checks (Huang et al. 2023, Sec. V-B, want
records that nobody can change unseen)."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import FilePath, Refused, Section
from fedray.scenario.consensus import Pbft


class LedgerSection(Section):
    """Each client signs a hash of the update that it sends, the server signs each round's tree of them."""

    cites: ClassVar[tuple[str, ...]] = ("laurie2021certificate", "josefsson2017edwards")
    verify_files: ClassVar[str] = "fedray.ledger.keys:verify_files"

    keep: Literal["hashes", "updates"] = Field(
        default="hashes",
        description="What the run folder keeps. hashes: of each update its SHA-256. updates: each of them, "
        "4 bytes a number: `fedray verify` adds them up again and compares the weights to the bit.",
    )
    keys: FilePath | None = Field(
        default=None,
        description="A folder of Ed25519 private keys as PEM files without a password (RFC 8032, RFC 8410): "
        "server.pem, client-0.pem, client-1.pem, ...; edge-0.pem, ... where edge servers agree. None: keys "
        "that follow from the seed, for simulation: whoever has the scenario has them too.",
    )
    consensus: Pbft | None = Field(
        default=None,
        description="How several edge servers agree on each round's head, so that nobody can sign two "
        "histories. None: the server signs it alone.",
    )

    @property
    def edges(self) -> int:
        """How many edge servers agree on it."""
        return 0 if self.consensus is None else self.consensus.validators

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if scenario.topology.splits_model:
            expected = (
                "parallel or relay: a split's server trains its part on what clients send with every batch, "
                "and no hash of an update says what became of the weights"
            )
            yield Refused("ledger", f"one over a {scenario.topology.kind}", expected)
        if self.keep == "updates" and scenario.companion is not None:
            expected = "hashes: what the server's generator adds to a round is no client's update"
            yield Refused(".keep", "updates beside augmentation", expected)
