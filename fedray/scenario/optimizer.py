"""`training.optimizer`: by what rule a client's weights follow their gradient, in torch's names."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Fraction, NotNegative, Positive, Refused
from fedray.scenario.kinds import KindSection, OpenKind
from fedray.scenario.quantized_formats import INSTALL

OPTIMIZERS = "fedray.executors.optimizers"  # where they are


class OptimizerSection(KindSection):
    """What every optimizer's section has."""

    kind: str = Field(description="The optimizer.")
    learning_rate: Positive = Field(description="The learning rate.")

    @property
    def is_plain_sgd(self) -> bool:
        """Whether a step is the gradient times the learning rate."""
        return False

    @property
    def is_momentum_sgd(self) -> bool:
        """Whether a step is v = momentum v + gradient, then the learning rate times v."""
        return False


class AdaptiveOptimizer(OptimizerSection):
    """What every adaptive optimizer has."""

    weight_decay: NotNegative = Field(default=0.0, description="The weight decay coefficient.")
    eps: Positive = Field(default=1e-8, description="Added to the denominator, so that it is never 0.")


class AdamMeans(AdaptiveOptimizer):
    """What every optimizer with Adam's two means has."""

    beta1: Fraction = Field(default=0.9, description="The decay of the mean of past gradients.")
    beta2: Fraction = Field(default=0.999, description="The decay of the mean of their squares.")


class PlainAdam(AdamMeans):
    """Adam, as torch.optim.Adam: weight decay is part of the gradient."""

    kind: Literal["adam"] = Field(description="adam: torch.optim.Adam.")
    amsgrad: bool = Field(default=False, description="Divide by the largest mean of squares so far.")

    implementation: ClassVar[str] = f"{OPTIMIZERS}:Adam"
    cites: ClassVar[tuple[str, ...]] = ("kingma2015adam",)


class AdamW(AdamMeans):
    """Adam with decoupled weight decay, as torch.optim.AdamW."""

    kind: Literal["adamw"] = Field(description="adamw: torch.optim.AdamW.")
    weight_decay: NotNegative = Field(default=0.01, description="The weight decay coefficient.")
    amsgrad: bool = Field(default=False, description="Divide by the largest mean of squares so far.")

    implementation: ClassVar[str] = f"{OPTIMIZERS}:AdamW"
    cites: ClassVar[tuple[str, ...]] = ("loshchilov2019decoupled",)


class AdamW8bit(AdamMeans):
    """AdamW whose means are kept in 8 bits, as bitsandbytes.optim.AdamW8bit: in blocks of 256 numbers with a
    scale each, and in 32 bits where fewer than 4096 train in a row."""

    kind: Literal["adamw_8bit"] = Field(description="adamw_8bit: bitsandbytes.optim.AdamW8bit.")
    weight_decay: NotNegative = Field(default=0.01, description="The weight decay coefficient.")

    implementation: ClassVar[str] = f"{OPTIMIZERS}:AdamW8bit"
    cites: ClassVar[tuple[str, ...]] = ("loshchilov2019decoupled", "dettmers2022optimizers")

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        from importlib.util import find_spec

        if find_spec("bitsandbytes") is None:
            yield Refused(".kind", "adamw_8bit without bitsandbytes", f"it installed: {INSTALL}")


class Adamax(AdamMeans):
    """Adam by the largest past gradient in place of the mean square, as torch.optim.Adamax."""

    kind: Literal["adamax"] = Field(description="adamax: torch.optim.Adamax.")

    implementation: ClassVar[str] = f"{OPTIMIZERS}:Adamax"
    cites: ClassVar[tuple[str, ...]] = ("kingma2015adam",)


class NAdam(AdamMeans):
    """Adam with Nesterov's momentum, as torch.optim.NAdam."""

    kind: Literal["nadam"] = Field(description="nadam: torch.optim.NAdam.")
    momentum_decay: NotNegative = Field(default=0.004, description="How fast the momentum rises to beta1.")
    decoupled_weight_decay: bool = Field(default=False, description="Decay weights as AdamW does.")

    implementation: ClassVar[str] = f"{OPTIMIZERS}:NAdam"
    cites: ClassVar[tuple[str, ...]] = ("dozat2016nadam",)


class RAdam(AdamMeans):
    """Adam whose variance is rectified in the first steps, as torch.optim.RAdam."""

    kind: Literal["radam"] = Field(description="radam: torch.optim.RAdam.")
    decoupled_weight_decay: bool = Field(default=False, description="Decay weights as AdamW does.")

    implementation: ClassVar[str] = f"{OPTIMIZERS}:RAdam"
    cites: ClassVar[tuple[str, ...]] = ("liu2020radam",)


class Adagrad(AdaptiveOptimizer):
    """Steps divided by the root of all past squares, as torch.optim.Adagrad."""

    kind: Literal["adagrad"] = Field(description="adagrad: torch.optim.Adagrad.")
    lr_decay: NotNegative = Field(default=0.0, description="The learning rate is divided by 1 + t lr_decay.")
    initial_accumulator_value: NotNegative = Field(
        default=0.0, description="What the sum of squares begins with."
    )
    eps: Positive = Field(default=1e-10, description="Added to the denominator, so that it is never 0.")

    implementation: ClassVar[str] = f"{OPTIMIZERS}:Adagrad"
    cites: ClassVar[tuple[str, ...]] = ("duchi2011adagrad",)


class Adadelta(AdaptiveOptimizer):
    """Steps of the size of past steps, as torch.optim.Adadelta."""

    kind: Literal["adadelta"] = Field(description="adadelta: torch.optim.Adadelta.")
    rho: Fraction = Field(default=0.9, description="The decay of both means of squares.")
    eps: Positive = Field(default=1e-6, description="Added to both means, so that no root is 0.")

    implementation: ClassVar[str] = f"{OPTIMIZERS}:Adadelta"
    cites: ClassVar[tuple[str, ...]] = ("zeiler2012adadelta",)


class RMSprop(AdaptiveOptimizer):
    """Steps divided by the root of the mean of past squares, as torch.optim.RMSprop."""

    kind: Literal["rmsprop"] = Field(description="rmsprop: torch.optim.RMSprop.")
    alpha: Fraction = Field(default=0.99, description="The decay of the mean of squares.")
    momentum: Fraction = Field(default=0.0, description="The momentum factor.")
    centered: bool = Field(default=False, description="Divide by the root of the variance instead.")

    implementation: ClassVar[str] = f"{OPTIMIZERS}:RMSprop"
    cites: ClassVar[tuple[str, ...]] = ("tieleman2012rmsprop",)


class Sgd(OptimizerSection):
    """Stochastic gradient descent, as torch.optim.SGD."""

    kind: Literal["sgd"] = Field(description="sgd: torch.optim.SGD.")
    weight_decay: NotNegative = Field(default=0.0, description="The weight decay coefficient.")
    momentum: Fraction = Field(default=0.0, description="The momentum factor.")
    dampening: Fraction = Field(
        default=0.0, description="What a gradient does not count in the momentum, but for the first."
    )
    nesterov: bool = Field(default=False, description="Step along Nesterov's momentum.")

    implementation: ClassVar[str] = f"{OPTIMIZERS}:Sgd"

    @property
    def is_plain_sgd(self) -> bool:
        return self.momentum == 0

    @property
    def is_momentum_sgd(self) -> bool:
        return self.dampening == 0 and not self.nesterov

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.nesterov and (self.momentum == 0 or self.dampening > 0):
            got = f"true with momentum {self.momentum:g} and dampening {self.dampening:g}"
            yield Refused(".nesterov", got, "a momentum, and no dampening")


Optimizer = Annotated[
    AdamW | PlainAdam | Sgd | AdamW8bit | Adamax | NAdam | RAdam | Adagrad | Adadelta | RMSprop,
    Discriminator("kind"),
    OpenKind("optimizer"),
]
