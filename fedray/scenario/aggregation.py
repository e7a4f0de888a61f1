"""`aggregation`: how updates are combined."""

import math
from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Count, Fraction, NotNegative, Positive, Section


class Clip(Section):
    """An update longer than `norm` (Euclidean) is scaled down to it."""

    kind: Literal["clip"]
    norm: Positive


class TopK(Section):
    """Only the `fraction` of numbers with the largest magnitude is sent (Aji and Heafield 2017)."""

    kind: Literal["top_k"]
    fraction: Annotated[float, Field(gt=0, le=1)]
    error_feedback: bool = True  # what was not sent is added to the client's next update (Stich et al. 2018)


class RandomK(Section):
    """Only a `fraction` of numbers is sent, at places both ends draw from the seed (Konecny et al. 2016)."""

    kind: Literal["random_k"]
    fraction: Annotated[float, Field(gt=0, le=1)]
    error_feedback: bool = True


class Quantise(Section):
    """Whole numbers of `bits`, rounded at random so that the mean is kept, with one fp32 scale a `block`
    (QSGD, Alistarh et al. 2017)."""

    kind: Literal["quantise"]
    bits: Literal[8, 4]
    block: Count = 1024
    error_feedback: bool = False


Transform = Annotated[Clip | TopK | RandomK | Quantise, Field(discriminator="kind")]


class FedAvg(Section):
    """The mean of the updates, weighted by samples (McMahan et al. 2017, Algorithm 1). With LoRA: of A and of
    B (FedIT)."""

    kind: Literal["fedavg"] = "fedavg"
    weighting: Literal["samples", "uniform"] = "samples"
    # what is done to an update before it is sent: clipped, thinned out, quantised
    transforms: list[Transform] = []

    @property
    def frozen(self) -> tuple[str, ...]:
        """Parts of names of parameters that stay as they were drawn."""
        return (".lora_A.",) if self.kind == "ffa_lora" else ()

    @property
    def keeps_state(self) -> bool:
        """Whether a client has a state of its own between its turns."""
        return self.kind == "scaffold" or any(getattr(t, "error_feedback", False) for t in self.transforms)

    @property
    def multiplies(self) -> bool:
        """Whether products of A and B are added up."""
        return self.kind in ("hetlora", "fedex_lora", "flora")

    def operations(self, updates: int) -> float:
        """Floating-point operations a number of so many updates: a subtraction, a multiplication and an
        addition each."""
        return 3.0 * updates

    def weight(self, samples: int) -> int:
        """What a client of so many samples weighs in the mean."""
        return samples if self.weighting == "samples" else 1


class FedProx(FedAvg):
    """FedAvg whose clients are held near the global model by mu / 2 |w - w_t|^2 (Li et al. 2020)."""

    kind: Literal["fedprox"]  # type: ignore[assignment]
    mu: NotNegative


class Scaffold(FedAvg):
    """Control variates correct each client's drift (Karimireddy et al. 2020, whose means are over clients,
    not samples); twice the bytes each way."""

    kind: Literal["scaffold"]  # type: ignore[assignment]
    weighting: Literal["samples", "uniform"] = "uniform"
    server_learning_rate: Positive = 1.0


class FedAvgM(FedAvg):
    """The mean update is a step of SGD with momentum at the server (Hsu et al. 2019)."""

    kind: Literal["fedavgm"]  # type: ignore[assignment]
    server_learning_rate: Positive = 1.0
    momentum: Fraction = 0.9


class FedAdam(FedAvg):
    """The mean update is a step of Adam at the server (Reddi et al. 2021; with torch's bias correction)."""

    kind: Literal["fedadam"]  # type: ignore[assignment]
    server_learning_rate: Positive = 1e-2
    beta1: Fraction = 0.9
    beta2: Fraction = 0.99
    tau: Positive = 1e-3  # the paper's degree of adaptivity, Adam's epsilon


class FedYogi(FedAdam):
    """As FedAdam, with Yogi's second moment (Reddi et al. 2021, Algorithm 2)."""

    kind: Literal["fedyogi"]  # type: ignore[assignment]


class Median(FedAvg):
    """The coordinate-wise median (Yin et al. 2018): each number's median over the clients, who all count the
    same, so that up to half of them may send anything."""

    kind: Literal["median"]  # type: ignore[assignment]
    weighting: Literal["uniform"] = Field("uniform", description="All clients count the same.")

    def operations(self, updates: int) -> float:
        """Of sorting them."""
        return updates * math.log2(max(2, updates))


class FfaLora(FedAvg):
    """FFA-LoRA (Sun et al. 2024): A stays as it was drawn, B alone trains and travels; half the bytes, an
    exact mean."""

    kind: Literal["ffa_lora"]  # type: ignore[assignment]


class HetLora(FedAvg):
    """HetLoRA (Cho et al. 2024): adapters of mixed ranks, weighted by the length of what they add to the base
    weights, so that a low rank, whose other rows are zero, does not shrink a higher one. `weighting: samples`
    multiplies by those too."""

    kind: Literal["hetlora"]  # type: ignore[assignment]
    weighting: Literal["samples", "uniform"] = "uniform"


class FedExLora(FedAvg):
    """FedEx-LoRA (Singhal et al. 2025): A and B are averaged, and what that leaves out of the mean product is
    folded into the base weights: exact. The change of the base goes down with the adapter."""

    kind: Literal["fedex_lora"]  # type: ignore[assignment]


class Flora(FedAvg):
    """Stacking (FLoRA, Wang et al. 2024): the mean product is folded into the base weights, exactly, and
    every round begins with a new adapter. The change of the base goes down with it."""

    kind: Literal["flora"]  # type: ignore[assignment]


Aggregation = Annotated[
    FedAvg
    | FedProx
    | Scaffold
    | FedAvgM
    | FedAdam
    | FedYogi
    | Median
    | FfaLora
    | HetLora
    | FedExLora
    | Flora,
    Field(discriminator="kind"),
]
