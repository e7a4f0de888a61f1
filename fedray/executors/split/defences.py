"""What a client does so that activations tell less of its inputs."""

from typing import Any

import torch
from torch import Tensor

from fedray.evaluation.leakage import distance_correlation
from fedray.scenario.kinds import implementation
from fedray.scenario.split_defence import DefenceSection
from fedray.transport.messages import NamedTensors, noised


class Defence:
    """Changes what is sent up, or what a client's part learns; by default neither."""

    Section = DefenceSection

    def __init__(self, section: Any) -> None:
        self.section = section

    def loss(self, inputs: Tensor, smashed: NamedTensors) -> list[Tensor]:
        """Terms that are added to the client's loss.

        Args:
            inputs: that shall stay secret [b, ...].
            smashed: the activations that are sent, by name.
        """
        return []

    def sent(self, smashed: NamedTensors, draws: torch.Generator) -> NamedTensors:
        """What is sent instead."""
        return smashed


class Noise(Defence):
    """Normal noise on every number (Titcombe et al. 2021)."""

    def sent(self, smashed: NamedTensors, draws: torch.Generator) -> NamedTensors:
        return noised(smashed, self.section.std, draws)


class DistanceCorrelation(Defence):
    """NoPeek (Vepakomma et al. 2020): the distance correlation of inputs and activations joins the loss."""

    def loss(self, inputs: Tensor, smashed: NamedTensors) -> list[Tensor]:
        sent = torch.cat([t.flatten(1).float() for _, t in smashed if t.is_floating_point()], 1)
        return [self.section.weight * distance_correlation(inputs, sent)]


def defence(section: DefenceSection | None) -> Defence | None:
    """The one that a scenario names, if it names one."""
    return None if section is None else implementation(section)(section)
