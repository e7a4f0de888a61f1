"""`aggregation`: how updates are combined."""

import math
from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Count, Fraction, NotNegative, Positive, Section


class Clip(Section):
    """An update whose Euclidean norm exceeds `norm` is scaled down to that norm."""

    kind: Literal["clip"] = Field(description="clip: limit the length of an update.")
    norm: Positive = Field(description="The largest Euclidean norm that an update may have.")


class TopK(Section):
    """Only the numbers of largest magnitude are sent (Aji and Heafield 2017)."""

    kind: Literal["top_k"] = Field(description="top_k: send only the numbers of largest magnitude.")
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        description="The share of an update's numbers that is sent; 1 sends all of them."
    )
    error_feedback: bool = Field(
        default=True,
        description="Add what was not sent to the same client's next update (Stich et al. 2018). It has no "
        "effect in a split's compression, which has no next update.",
    )


class RandomK(Section):
    """Only some numbers are sent, at places that client and server both draw from the seed, so that no
    places travel (Konecny et al. 2016)."""

    kind: Literal["random_k"] = Field(description="random_k: send numbers at random places.")
    fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        description="The share of an update's numbers that is sent; 1 sends all of them."
    )
    error_feedback: bool = Field(
        default=True,
        description="Add what was not sent to the same client's next update (Stich et al. 2018).",
    )


class Quantize(Section):
    """Numbers are sent as integers of few bits, rounded at random so that the mean is kept, with one fp32
    scale per block (QSGD, Alistarh et al. 2017)."""

    kind: Literal["quantize"] = Field(description="quantize: send integers of few bits.")
    bits: Literal[8, 4] = Field(description="Bits per number: 8 or 4.")
    block: Count = Field(default=1024, description="How many numbers share one fp32 scale.")
    error_feedback: bool = Field(
        default=False,
        description="Add the rounding error to the same client's next update (Stich et al. 2018).",
    )


Transform = Annotated[Clip | TopK | RandomK | Quantize, Field(discriminator="kind")]


class FedAvg(Section):
    """The weighted mean of the clients' updates (McMahan et al. 2017, Algorithm 1). With LoRA, A and B are
    averaged separately (FedIT)."""

    kind: Literal["fedavg"] = Field(default="fedavg", description="fedavg: the weighted mean of the updates.")
    weighting: Literal["samples", "uniform"] = Field(
        default="samples",
        description="How much a client counts. samples: in proportion to how many samples it has. uniform: "
        "every client the same.",
    )
    transforms: list[Transform] = Field(
        default=[],
        description="What is done to an update before it is sent, in this order: clip, then top_k or "
        "random_k, then quantize; at most one of each.",
    )

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
    """FedAvg whose clients add mu / 2 |w - w_t|^2 to their loss, which holds their weights w near the
    round's global weights w_t (Li et al. 2020)."""

    kind: Literal["fedprox"] = Field(  # type: ignore[assignment]
        description="fedprox: the mean of the updates, with a proximal term in the clients' loss."
    )
    mu: NotNegative = Field(description="The weight of the proximal term; 0 is FedAvg.")


class Scaffold(FedAvg):
    """Control variates correct each client's drift (Karimireddy et al. 2020, whose means are over clients,
    not over samples). Twice the bytes travel in each direction."""

    kind: Literal["scaffold"] = Field(  # type: ignore[assignment]
        description="scaffold: the mean of the updates, with control variates."
    )
    weighting: Literal["samples", "uniform"] = Field(
        default="uniform",
        description="How much a client counts. uniform: every client the same, as in the paper. samples: in "
        "proportion to how many samples it has; only where all clients take part in every round.",
    )
    server_learning_rate: Positive = Field(
        default=1.0, description="The factor on the mean update at the server; 1 adds it as it is."
    )


class FedAvgM(FedAvg):
    """The mean update is a step of SGD with momentum at the server (Hsu et al. 2019)."""

    kind: Literal["fedavgm"] = Field(  # type: ignore[assignment]
        description="fedavgm: the mean update is a server's step of SGD with momentum."
    )
    server_learning_rate: Positive = Field(default=1.0, description="The server optimizer's learning rate.")
    momentum: Fraction = Field(default=0.9, description="The server optimizer's momentum; 0 is FedAvg.")


class FedAdam(FedAvg):
    """The mean update is a step of Adam at the server (Reddi et al. 2021; with torch's bias correction)."""

    kind: Literal["fedadam"] = Field(  # type: ignore[assignment]
        description="fedadam: the mean update is a server's step of Adam."
    )
    server_learning_rate: Positive = Field(default=1e-2, description="The server optimizer's learning rate.")
    beta1: Fraction = Field(default=0.9, description="The decay of the mean of past updates.")
    beta2: Fraction = Field(default=0.99, description="The decay of the mean of their squares.")
    tau: Positive = Field(
        default=1e-3, description="The degree of adaptivity in the paper; the epsilon of Adam."
    )


class FedYogi(FedAdam):
    """As FedAdam, with Yogi's second moment (Reddi et al. 2021, Algorithm 2)."""

    kind: Literal["fedyogi"] = Field(  # type: ignore[assignment]
        description="fedyogi: the mean update is a server's step of Yogi."
    )


class Median(FedAvg):
    """The coordinate-wise median (Yin et al. 2018): each number's median over the clients, who all count the
    same, so that up to half of them may send anything."""

    kind: Literal["median"]  # type: ignore[assignment]
    weighting: Literal["uniform"] = Field(default="uniform", description="All clients count the same.")

    def operations(self, updates: int) -> float:
        """Of sorting them."""
        return updates * math.log2(max(2, updates))


class FfaLora(FedAvg):
    """FFA-LoRA (Sun et al. 2024): an adapter's A stays as it was drawn, only B trains and travels. Half the
    bytes, and the mean is exact."""

    kind: Literal["ffa_lora"] = Field(  # type: ignore[assignment]
        description="ffa_lora: A is frozen, B is averaged. Needs tuning.kind lora."
    )


class HetLora(FedAvg):
    """HetLoRA (Cho et al. 2024): adapters of mixed ranks, weighted by the norm of what they add to the base
    weights, so that a low rank, whose other rows are zero, does not shrink a higher one."""

    kind: Literal["hetlora"] = Field(  # type: ignore[assignment]
        description="hetlora: a mean of adapters of mixed ranks. Needs tuning.kind lora."
    )
    weighting: Literal["samples", "uniform"] = Field(
        default="uniform",
        description="uniform: a client counts by the norm of what its adapter adds. samples: by that norm, "
        "multiplied by how many samples it has.",
    )


class FedExLora(FedAvg):
    """FedEx-LoRA (Singhal et al. 2025): A and B are averaged, and the difference between the mean of the
    products and the product of the means is added to the base weights, so that nothing is lost. The change
    of the base weights goes down with the adapter."""

    kind: Literal["fedex_lora"] = Field(  # type: ignore[assignment]
        description="fedex_lora: A and B are averaged, the rest goes into the base. Needs tuning.kind lora."
    )


class Flora(FedAvg):
    """FLoRA (Wang et al. 2024), stacking: the mean product of B and A is added to the base weights exactly,
    and every round begins with a new adapter. The change of the base weights goes down with it."""

    kind: Literal["flora"] = Field(  # type: ignore[assignment]
        description="flora: adapters are stacked and added to the base. Needs tuning.kind lora."
    )


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
