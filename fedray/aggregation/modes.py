"""What becomes of an update whose client began with an older model than the one that it joins."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedray.aggregation.staleness import Staleness
from fedray.scenario.kinds import implementation
from fedray.scenario.mode import AnyMode, ModeSection
from fedray.schedule import Tier


def stale(section: Any, staleness: int) -> float:
    """s(t), how much an update of this staleness counts.

    Args:
        section: the scenario's `topology.mode`, with a function of staleness.
        staleness: t.
    """
    function: Staleness = implementation(section.staleness)(section.staleness)
    return function.factor(staleness)


class Mode(ABC):
    """A mode of asynchronous rounds. One of one's own, which takes stale updates as they are:

        class AsTheyAre(fedray.Mode):
            def contribution(self, change, staleness, drift):
                return change

    Args:
        section: the scenario's `topology.mode`.
    """

    Section: ClassVar[type[AnyMode]] = ModeSection

    needs_drift = False  # whether `contribution` asks how far the global model has moved meanwhile
    keeps = ""  # how the names of what `server_step` keeps begin; empty: it keeps nothing

    def __init__(self, section: Any) -> None:
        self.section = section

    @abstractmethod
    def contribution(self, change: Tensor, staleness: int, drift: Tensor | None) -> Tensor:
        """What is accumulated of an update [sent] fp32.

        Args:
            change: the client's model minus the one that it received [sent] fp32.
            staleness: server steps that were taken in between.
            drift: the model that it received minus the global one now [sent] fp32; None where `needs_drift`
                is False.
        """

    def server_step(
        self, old: Tensor, new: Tensor, kept: Mapping[str, Tensor], tier: Tier | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The next global model [received] fp32, and what the server keeps for the one after it.

        Args:
            old: the global model before the step [received] fp32.
            new: what the rule has made of it and of the contributions [received] fp32.
            kept: what it kept in the step before.
            tier: whose step it is; None: clients are in no tiers.
        """
        return new, {}


class FedBuffMode(Mode):
    """s(t) (x_k - x_base): the mean of these is the server's step (Nguyen et al. 2022, Algorithm 1)."""

    def contribution(self, change: Tensor, staleness: int, drift: Tensor | None) -> Tensor:
        factor = stale(self.section, staleness)
        return change if factor == 1.0 else change * factor


class FedAsyncMode(Mode):
    """m (x_k - x) with m = mixing s(t), so that x becomes (1 - m) x + m x_k (Xie et al. 2019, Algorithm
    1)."""

    needs_drift = True

    def contribution(self, change: Tensor, staleness: int, drift: Tensor | None) -> Tensor:
        assert drift is not None
        return (change + drift) * (self.section.mixing * stale(self.section, staleness))


class TiersMode(Mode):
    """Each tier's model is the mean of its clients' models; the global one is the tiers' mean, in which the
    k-th fastest weighs as many steps as the k-th slowest has taken (FedAT, Chai et al. 2021, Algorithm 1).
    With rule tifl the step is that of the tier's clients alone."""

    needs_drift = True
    keeps = "tier-"

    def contribution(self, change: Tensor, staleness: int, drift: Tensor | None) -> Tensor:
        assert drift is not None
        return change + drift

    def server_step(
        self, old: Tensor, new: Tensor, kept: Mapping[str, Tensor], tier: Tier | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert tier is not None
        if self.section.rule != "fedat":
            return new, {}
        # before the first step of all, every tier has the first model
        models = {name: kept.get(name, old) for name in (f"{self.keeps}{m}" for m in range(len(tier.steps)))}
        models[f"{self.keeps}{tier.number}"] = new
        weights = [n / sum(tier.steps) for n in reversed(tier.steps)]
        mean = sum(
            (w * model.double() for w, model in zip(weights, models.values(), strict=True) if w),
            torch.zeros(len(new), dtype=torch.float64),
        )
        return mean.float(), models
