"""A scenario's attackers, as the workers know them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fedray.adversary.attack import Attack
from fedray.aggregation.accumulators import Accumulator, Gathered
from fedray.aggregation.rule import Rule
from fedray.aggregation.superposed import SuperposedSum
from fedray.data import Samples
from fedray.scenario.kinds import implementation
from fedray.scenario.scenario import Scenario
from fedray.transport.hooks import HookChain, HookContext


class Attackers:
    """Which clients attack in a round, with what they train on and send. Of a scenario without an adversary:
    none."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.attacks = attacks(scenario)

    def attacks_in(self, round_number: int, client: int) -> bool:
        return client in self.scenario.attackers_in(round_number)

    def changes_samples(self, round_number: int, client: int) -> bool:
        """Whether this client trains on other samples than its own."""
        changes = any(attack.section.changes_samples for attack in self.attacks)
        return changes and self.attacks_in(round_number, client)

    def samples(self, client: int, samples: Samples, indices: np.ndarray) -> Samples:
        """What an attacker trains on."""
        for attack in self.attacks:
            samples = attack.samples(client, samples, indices)
        return samples

    def sender(self, hooks: HookChain, context: HookContext) -> HookChain:
        """The hooks of the client that sends: the scenario's, or an attacker's own."""
        attacks = self.attacks_in(context.round_number, context.client)
        if not attacks or all(attack.section.sends_honestly for attack in self.attacks):
            return hooks
        return HookChain([*self.attacks, *hooks.codecs], hooks.dtype, hooks.feeds_back)

    def empty(self, rule: Rule, round_weight: int) -> Accumulator:
        """What a rule's updates become where they arrive: each by itself where attackers or the server look
        at them."""
        kind = accumulator(self.scenario, rule)
        return rule.empty(round_weight) if kind is rule.accumulator else kind(rule.summed, round_weight)

    def arrived(
        self, partials: Sequence[Accumulator], round_number: int, context: HookContext
    ) -> dict[int, tuple[int, np.ndarray]]:
        """Each client with its weight and its update [summed] fp32, ascending, once colluding attackers have
        seen the others' updates.

        Args:
            partials: what each host has gathered of what the clients have sent.
            round_number: from 1.
            context: of the round.
        """
        updates: dict[int, tuple[int, np.ndarray]] = {}
        for partial in partials:
            assert isinstance(partial, Gathered)
            updates |= dict(partial.by_client())
        active = self.scenario.attackers_in(round_number)
        attackers = sorted(updates.keys() & active)
        honest = sorted(updates.keys() - active)
        if self.scenario.has_collusion and attackers and honest:
            values = _stacked(updates, honest)
            sent = _stacked(updates, attackers)
            for attack in self.attacks:
                sent = attack.collude(values, sent, context)
            for client, update in zip(attackers, sent, strict=True):
                updates[client] = updates[client][0], update.numpy()
        return dict(sorted(updates.items()))

    def colluded(
        self, rule: Rule, arrived: Accumulator, round_number: int, context: HookContext
    ) -> Accumulator:
        """What has arrived once the attackers have seen the others' updates, as the rule accumulates it.

        Args:
            rule: of the scenario.
            arrived: what the clients have sent.
            round_number: from 1.
            context: of the round.
        """
        if not self.scenario.gathers_updates:
            return arrived
        result = rule.empty(arrived.round_weight)
        result.counts.update(arrived.counts)
        for client, (weight, update) in self.arrived([arrived], round_number, context).items():
            result.add(torch.from_numpy(update), weight, client)
        return result


def accumulator(scenario: Scenario, rule: Rule) -> type[Accumulator]:
    """What updates become where they arrive: each by itself where attackers or the server look at them, a sum
    with noise where they add up on the air."""
    if scenario.gathers_updates:
        return Gathered
    return SuperposedSum if scenario.network.uplink.superposes else rule.accumulator


def attacks(scenario: Scenario) -> list[Attack]:
    """What attackers do, in its order."""
    adversary = scenario.adversary
    return [implementation(section)(section, scenario) for section in adversary.attack] if adversary else []


def _stacked(updates: Mapping[int, tuple[int, np.ndarray]], clients: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.stack([updates[client][1] for client in clients]))
