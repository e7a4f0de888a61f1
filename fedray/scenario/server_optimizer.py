"""Server optimizers: what a rule's update is taken for at the server (Reddi et al. 2021, Algorithm 2)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Fraction, Positive, Section
from fedray.scenario.kinds import KindSection


class Momentum(Section):
    """A step of SGD with momentum at the server."""

    server_learning_rate: Positive = Field(default=1.0, description="The server optimizer's learning rate.")
    momentum: Fraction = Field(default=0.9, description="The server optimizer's momentum; 0 is FedAvg.")

    implementation: ClassVar[str] = "fedray.aggregation.fedopt:FedAvgM"
    cites: ClassVar[tuple[str, ...]] = ("hsu2019measuring",)


class Adaptive(Section):
    """A step at the server with two moments of past updates."""

    server_learning_rate: Positive = Field(default=1e-2, description="The server optimizer's learning rate.")
    beta1: Fraction = Field(default=0.9, description="The decay of the mean of past updates.")
    beta2: Fraction = Field(default=0.99, description="The decay of the mean of their squares.")
    tau: Positive = Field(
        default=1e-3, description="The degree of adaptivity in the paper; the epsilon of Adam."
    )
    cites: ClassVar[tuple[str, ...]] = ("reddi2021adaptive",)


class Adam(Adaptive):
    """A step of Adam at the server."""

    implementation: ClassVar[str] = "fedray.aggregation.fedopt:FedAdam"


class Yogi(Adaptive):
    """A step of Yogi at the server."""

    implementation: ClassVar[str] = "fedray.aggregation.fedopt:FedYogi"


class ServerMomentum(Momentum, KindSection):
    """The combined update is a step of SGD with momentum at the server (Hsu et al. 2019)."""

    kind: Literal["fedavgm"] = Field(description="fedavgm: SGD with momentum.")


class ServerAdam(Adam, KindSection):
    """The combined update is a step of Adam at the server (Reddi et al. 2021)."""

    kind: Literal["fedadam"] = Field(description="fedadam: Adam.")


class ServerYogi(Yogi, KindSection):
    """The combined update is a step of Yogi at the server (Reddi et al. 2021)."""

    kind: Literal["fedyogi"] = Field(description="fedyogi: Yogi.")


ServerOptimizer = Annotated[ServerMomentum | ServerAdam | ServerYogi, Discriminator("kind")]
