"""`evaluation.leakage`: what an observer learns of the clients' samples, and by which attack."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from fedray.scenario.base import Count, NotNegative, Refused, Section

FEW = 16  # held-out samples, below which what leaks cannot be told


class Leakage(Section):
    """What an observer could learn of the clients' samples. Attacks are made in each evaluation, and their
    time is not on the simulated clock.

    Of a split's activations: how they depend on the inputs, and how well an attacker rebuilds these. Of a
    classifier's updates: the pictures behind them (Inverting Gradients, Geiping et al. 2020). Stand-in
    clients train from the global model on pictures of the test set, as the clients of a round do; the
    attacker sees what the view shows, and knows the model, how a client trains, the labels and the order of
    batches. How many labels it could have recovered by itself is measured apart. Of other models' updates:
    whether a sample was trained on, by its loss (membership inference, Yeom et al. 2018)."""

    view: Literal["activations", "neighbour", "server", "sum"] = Field(
        default="activations",
        description="Who looks at what. activations: the server of a split, at what clients send up. "
        "neighbour: the next device of a relay, at the model that one client has trained. server: the "
        "server, at one update as it arrives, after transforms and privacy: one client's, or that of a "
        "relay's chain. sum: the server, at the mean of a round's updates, which is what "
        "secure_aggregation leaves, before noise that the server adds.",
    )
    samples: Annotated[int, Field(ge=16)] = Field(
        default=256,
        description="How many samples are tried at most; of activations, the attacker knows half of them; "
        "half of them are members, where membership is inferred.",
    )
    attack_steps: Count = Field(
        default=300,
        description="Training steps of the attacker, who learns to rebuild inputs from activations, or "
        "changes pictures until their update is the one that was seen.",
    )
    pictures: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="How many pictures each stand-in client trains on, whose updates are inverted."
    )
    total_variation: NotNegative = Field(
        default=1e-4,
        description="The weight of the pictures' total variation beside the cosine distance of updates. More "
        "of it helps where much is added up, or noise.",
    )
    draws: Count = Field(
        default=8,
        description="How many draws of noise and timestep a sample's loss is averaged over, where "
        "membership is inferred.",
    )

    def cited_with(self, model: Any) -> Iterator[str]:
        """Keys of BibTeX entries of the attacks on such a model."""
        if self.view == "activations":
            yield from ("szekely2007measuring", "he2019model")
        elif model.inverts_updates:
            yield from ("geiping2020inverting", "zhao2020idlg", "wainakh2022user", "wang2004image")
        else:
            yield from ("yeom2018privacy", "carlini2022membership")

    def seen(self, scenario: Any) -> tuple[int, int]:
        """How many updates are added up in what is seen, and how many local updates, one from where another
        ended, are in each."""
        clients = scenario.population.clients_per_round
        if self.view == "sum":
            return clients, 1
        if self.view == "server":
            return 1, -(-clients // scenario.topology.updates(clients))
        return 1, 1

    def least_held_out(self, scenario: Any) -> int:
        """How many samples there have to be that nobody trains on."""
        updates, turns = self.seen(scenario)
        inverted = self.view != "activations" and scenario.model.inverts_updates
        return FEW + (updates * turns * self.pictures if inverted else 0)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        views = scenario.topology.views
        kind = scenario.topology.kind
        if self.view not in views:
            expected = f"{' or '.join(views)} for a {kind}" if views else f"no leakage: a {kind} has no view"
            yield Refused(".view", self.view, expected)
        elif scenario.sites:
            yield Refused("evaluation.leakage", "one beside data.sites", "data that may be looked at")
        elif self.view != "activations":
            yield from self._of_updates(scenario)

    def _of_updates(self, scenario: Any) -> Iterator[Refused]:
        if not scenario.data.has_test_set:
            expected = "data with a test set: samples that nobody trains on"
            yield Refused(".view", f"{self.view} on {scenario.data.kind}", expected)
        if self.view == "server" and scenario.secure_aggregation is not None:
            expected = "sum: masks leave the server nothing else"
            yield Refused(".view", "server beside secure_aggregation", expected)
        if scenario.tuning.local or scenario.model.trains_home:
            yield Refused("tuning.local", "some beside evaluation.leakage", "none: an observer lacks them")
        if scenario.model.inverts_updates:
            yield from self._of_inversion(scenario)

    def _of_inversion(self, scenario: Any) -> Iterator[Refused]:
        training = scenario.training
        beside = "beside evaluation.leakage"
        if not training.optimizer.is_momentum_sgd:
            expected = "sgd without nesterov and dampening, whose steps the attacker repeats"
            yield Refused("training.optimizer.kind", f"{training.optimizer.kind} {beside}", expected)
        if training.schedule is not None:
            expected = "none: the attacker repeats steps of one learning rate"
            yield Refused("training.schedule", f"{training.schedule.kind} {beside}", expected)
        if training.groups:
            expected = "none: the attacker repeats steps of one optimizer"
            yield Refused("training.groups", f"some {beside}", expected)
        if scenario.privacy is not None and scenario.privacy.in_local_update:
            expected = "central, local or none: the attacker repeats steps without noise"
            yield Refused("privacy.kind", f"{scenario.privacy.kind} {beside}", expected)
        if scenario.model.normalizes_batches:
            expected = "group: the attacker repeats no running means"
            yield Refused("model.norm", f"batch {beside}", expected)
