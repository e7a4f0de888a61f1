"""What every privacy mechanism is: a hook, which stands behind the scenario's transforms."""

from typing import Any, ClassVar

from torch import Tensor

from fedray.privacy.noise import gaussian
from fedray.scenario.privacy import PrivacySection
from fedray.transport.hooks import Hook


class Mechanism(Hook):
    """Makes a run differentially private, by what it does to updates.

    Args:
        section: the scenario's `privacy`, whose noise_multiplier is known.
        scenario: the whole, whose topology and population say what updates there are.

    One of one's own that rounds what a client sends to its signs, and adds noise to them (no accountant knows
    its epsilon, so that a scenario says noise_multiplier):

        class NoisySigns(fedray.Mechanism):
            def on_client(self, update, context):
                return update.sign() * self.section.clip_norm + self.noise(len(update), context, "signs")
    """

    Section: ClassVar[type[PrivacySection]] = PrivacySection  # type: ignore[assignment]

    def __init__(self, section: Any, scenario: Any) -> None:
        super().__init__(section)
        # before epsilon is settled, only what a chain does is asked for, not the noise
        self.multiplier = section.noise_multiplier or 0.0
        self.in_relay = scenario.topology.hands_model_on
        # of a round, whatever becomes of them: a divisor that depended on who came would tell of a client
        self.expected_updates = scenario.topology.updates(scenario.population.clients_per_round)

    def noise(self, n: int, context: Any, purpose: str) -> Tensor:
        """Gaussian noise [n] float64 of standard deviation noise_multiplier times clip_norm.

        Args:
            n: how many numbers.
            context: where in the run.
            purpose: of the draw, which no other of this round and client has.
        """
        scale = self.multiplier * self.section.clip_norm
        return scale * gaussian(n, self.section.noise, context.key(purpose))
