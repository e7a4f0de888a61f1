"""What a client says of its local update."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedray.callbacks import ClientReport


@dataclass(frozen=True)
class TrainReport:
    """What a client says of its turn. Work and losses, never times."""

    round: int
    client: int
    samples: int  # it holds
    trained: int  # samples it went through
    loss: float  # mean over the samples it went through, each under the weights of its step
    failure: str | None = None
    stage: str | None = None
    steps: int = 0  # that its optimizer took
    # of the server's own report: what it adds to the round's metrics
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    # of the server's own report: what each update adds to the model, where it looks, by client
    contributions: Mapping[int, float] | None = None
    # clients of its relay whose models were rejected since the report before it in the chain
    rejected: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()  # of generated samples that it was sent to score
    leaf: bytes | None = None  # its line in the ledger, where the scenario has one
    update: bytes | None = None  # the file of what it sent, where the ledger keeps updates

    def public(self, clients: int) -> ClientReport:
        """The same for callbacks and records, in a round in which so many clients train."""
        return ClientReport(
            round_number=self.round,
            client=self.client,
            clients=clients,
            samples_held=self.samples,
            samples=self.trained,
            steps=self.steps,
            loss=self.loss,
            failure=self.failure,
            stage=self.stage,
            rejected=self.rejected,
        )
