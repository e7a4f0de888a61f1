"""What a client says of its local update."""

from dataclasses import dataclass


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
    kappa_2: float | None = None  # the server's own report: what its augmented model weighs
