"""The base class of attacks."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from fedray.data import Samples
from fedray.evaluation.evaluation import Evaluation
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.randomness import generator
from fedray.scenario.attacks import AttackSection
from fedray.transport.hooks import Hook, HookContext


class Attack(Hook):
    """What an attacker does. As a hook it changes what the attacker sends (`on_client`), in place of the
    hooks of honest clients, such as a clip; only what writes an update as bytes is the same for all. Every
    method has a default that does nothing.

    Args:
        section: an entry of the scenario's `adversary.attack`.
        scenario: the whole, for what an attacker knows of a round.

    An attack of one's own that sends what was learnt a hundredfold:

        class Shout(fedray.Attack):
            def on_client(self, update, context):
                return 100 * update
    """

    Section: ClassVar[type[AttackSection]] = AttackSection  # type: ignore[assignment]

    def __init__(self, section: Any, scenario: Any) -> None:
        super().__init__(section)
        self.scenario = scenario

    def samples(self, client: int, samples: Samples, indices: np.ndarray) -> Samples:
        """What the attacker trains on instead, by the same indices; of a section that `changes_samples`.

        Args:
            client: the attacker.
            samples: of all clients that can be opened here.
            indices: which of them are the attacker's.

        Raises:
            ValueError: where the attacker has no samples that the attack needs.
        """
        return samples

    def collude(self, honest: Tensor, own: Tensor, context: HookContext) -> Tensor:
        """What all attackers send [m, n] fp32; of a section that `colludes`.

        Args:
            honest: the updates [k, n] fp32 of the others, sorted by client.
            own: the updates [m, n] fp32 that the attackers have made, sorted by client.
            context: of the round.
        """
        return own

    def verify(self, context: EvaluationContext) -> None:
        """Whatever can be refused once the data are known, before anything trains.

        Raises:
            Refused: for a label that there is not, among others.
        """

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        """How well the attack works on the global model: metrics by name, each beginning with `eval_`."""
        return {}

    def chosen(self, client: int, indices: np.ndarray, share: float) -> np.ndarray:
        """A share of these samples, at least one where there is any, drawn once a run: sorted."""
        n = min(len(indices), max(1, round(share * len(indices))))
        rng = generator(self.scenario.seed, 0, client, f"attack {self.section.kind}")
        return np.sort(rng.choice(indices, n, replace=False))


class Misreport(Attack):
    """What the attacker sends and trains on is honest; its bid is not (see planning.bidding)."""


class AttackSuccess(Evaluation):
    """What the attacks of a scenario measure.

    Args:
        attacks: of the scenario.
    """

    def __init__(self, attacks: Sequence[Attack]) -> None:
        self.attacks = attacks

    def verify(self, context: EvaluationContext, downloaded: bool) -> None:
        if downloaded:
            for attack in self.attacks:
                attack.verify(context)

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for attack in self.attacks:
            metrics |= attack.measure(learner, context)
        return metrics
