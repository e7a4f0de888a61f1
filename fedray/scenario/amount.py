"""`augmentation.amount`: how many pictures are generated."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Count, Positive, Refused
from fedray.scenario.kinds import KindSection, OpenKind


class AmountSection(KindSection):
    """How many pictures are generated, up to `per_class` a label and round and `at_most` a label in all, or
    by a rule of its own."""

    kind: str = Field(description="The rule.")

    needs_server: ClassVar[bool] = False  # whether it is about pictures that the server paints
    by_batches: ClassVar[bool] = False  # whether a round has whole batches, whatever per_class says

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.needs_server and scenario.augmentation.at == "client":
            expected = "server or server_broadcast, or an amount of kind per_class"
            yield Refused("augmentation.at", f"client with an amount of kind {self.kind}", expected)


class PerClass(AmountSection):
    """`per_class` pictures a label and round, up to `at_most` a label."""

    kind: Literal["per_class"] = Field(
        default="per_class", description="per_class: per_class pictures a label and round."
    )

    implementation: ClassVar[str] = "fedray.augmentation.amount:PerClassAmount"


class Hidden(AmountSection):
    """As many pictures a round as the server generates while it would wait for clients anyway:
    floor(f (T_clients - T_train) / F), where f is the server's speed, F a picture's work, T_clients when the
    last update arrives and T_train the augmented model's training on all pictures. Whole batches of
    `batch_size`, up to `at_most` a label; `per_class` says nothing."""

    kind: Literal["hidden"] = Field(description="hidden: as many as hide behind the clients' local updates.")

    implementation: ClassVar[str] = "fedray.augmentation.amount:HiddenAmount"
    needs_server: ClassVar[bool] = True
    by_batches: ClassVar[bool] = True
    cites: ClassVar[tuple[str, ...]] = ("qiang2024aigc",)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if scenario.augmentation.at != "server":
            expected = "server: clients wait for pictures that they are sent"
            yield Refused("augmentation.at", f"{scenario.augmentation.at} with hidden pictures", expected)


class ErrorEnergy(AmountSection):
    """The number n of pictures with the least error_price scale (D + quality n)^-exponent + e n, where D is
    how many samples the clients have and e the joules that the server spends on a picture; up to `at_most` a
    label, `per_class` a label and round. The power law of error and data is that of Li et al. 2024 (FIMI)."""

    kind: Literal["error_energy"] = Field(
        description="error_energy: the amount that balances learning error and energy."
    )
    scale: Positive = Field(description="a of the error a (D + g n)^-b, of no unit.")
    exponent: Positive = Field(description="b of the error a (D + g n)^-b.")
    quality: Positive = Field(default=1.0, description="g: how many real samples a picture is worth.")
    error_price: Positive = Field(description="Joules that an error of 1 costs.")

    implementation: ClassVar[str] = "fedray.augmentation.amount:ErrorEnergyAmount"
    needs_server: ClassVar[bool] = True
    cites: ClassVar[tuple[str, ...]] = ("li2024filling",)


class Joint(AmountSection):
    """How many pictures each client of a round trains on, with its share of the uplink's band and its CPU
    frequency: those with which all of them together spend the least energy before network.deadline_s, where
    sum (D_k + g n_k) over the round's clients reaches (scale / error)^(1 / exponent), D_k being client k's
    samples and n_k its pictures (the problem of FIMI, Li et al. 2024). Where so many cannot be in time, as
    many as can. Up to `at_most` a label; `per_class` says nothing."""

    kind: Literal["joint"] = Field(
        description="joint: amounts, shares of the band and CPU frequencies of the least energy."
    )
    error: Positive = Field(description="The error that is aimed at, a (D + g n)^-b, of no unit.")
    scale: Positive = Field(description="a of the error a (D + g n)^-b.")
    exponent: Positive = Field(description="b of the error a (D + g n)^-b.")
    quality: Positive = Field(default=1.0, description="g: how many real samples a picture is worth.")
    rounds: Count = Field(
        default=1,
        description="Rounds in which a client trains on a picture: what the server spends on generating and "
        "sending it, once, is divided by them.",
    )

    implementation: ClassVar[str] = "fedray.augmentation.joint:JointAmount"
    cites: ClassVar[tuple[str, ...]] = ("li2024filling",)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if scenario.augmentation.at == "server":
            expected = "client or server_broadcast: each client trains on pictures of its own number"
            yield Refused("augmentation.at", "server with a joint amount", expected)
        uplink = scenario.network.uplink
        if not uplink.slows_devices:
            got = "joint over an uplink whose shares and frequencies are not decided with it"
            yield Refused(".kind", got, "network.uplink.allocation least_energy")
        if uplink.several_cells:
            got = f"joint over an uplink of kind {uplink.kind}"
            yield Refused(".kind", got, "a link with one band for all, in which amounts are weighed")


AnyAmount = Annotated[PerClass | Hidden | ErrorEnergy | Joint, Discriminator("kind"), OpenKind("amount")]
