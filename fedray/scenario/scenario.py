"""The scenario as a whole: its sections, what follows from several of them, and what does not go together."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from fedray.lazy import resolve
from fedray.scenario.adversary import Adversary
from fedray.scenario.aggregation import Aggregation, FedAvg
from fedray.scenario.augmentation import Augmentation
from fedray.scenario.base import Name, Refused, Section
from fedray.scenario.data import Data
from fedray.scenario.evaluation import Evaluation
from fedray.scenario.incentive import Incentive
from fedray.scenario.kinds import conflicts
from fedray.scenario.ledger import LedgerSection
from fedray.scenario.model import Model
from fedray.scenario.network import Network
from fedray.scenario.personal import Personal
from fedray.scenario.population import Population
from fedray.scenario.privacy import Privacy
from fedray.scenario.runtime import Runtime
from fedray.scenario.secure_aggregation import SecureAggregation
from fedray.scenario.sweep import Sweep
from fedray.scenario.topology import Split, Topology
from fedray.scenario.training import Training
from fedray.scenario.tuning import Payload, Tuning


class Scenario(Section):
    """One experiment: whose data, what model, what trains and travels, who sends what to whom, how it is
    combined, and what the network costs."""

    name: Name = Field(
        description="The scenario's name, which is its run folder's too: letters, digits, dots, dashes and "
        "underscores, at most 64."
    )
    description: str = Field(default="", description="What it shows, in a sentence.")
    shows: list[str] = Field(
        default=[],
        description="Claims of papers that it shows, such as huang2023/fig-2a; see docs/papers.md.",
    )
    seed: int = Field(default=0, description="Every random draw of the run follows from this number.")
    topology: Topology = Field(description="Who sends what to whom, and when.")
    population: Population = Field(
        description="How many clients there are, and how many take part in a round."
    )
    data: Data = Field(description="Whose data: images or texts, their captions, and which client has which.")
    model: Model = Field(description="What is learned.")
    tuning: Tuning = Field(description="What trains and travels.")
    training: Training = Field(description="How clients train: how long, how often, how fast.")
    aggregation: Aggregation = Field(default=FedAvg(), description="How the clients' updates are combined.")
    personal: Personal | None = Field(
        default=None,
        description="What a client does in its local update for a model of its own. None: it trains the "
        "global model, with what stays at home (tuning.local).",
    )
    privacy: Privacy | None = Field(
        default=None,
        description="Differential privacy: what is clipped, where noise is added. None: none.",
    )
    augmentation: Augmentation | None = Field(
        default=None,
        description="Images that a generator makes of labels which clients lack (GenFL). None: no such "
        "images.",
    )
    adversary: Adversary | None = Field(
        default=None, description="Which clients attack, and how. None: all are honest."
    )
    ledger: LedgerSection | None = Field(
        default=None,
        description="A signed record of every update, for `fedray verify`. None: no such record.",
    )
    secure_aggregation: SecureAggregation | None = Field(
        default=None,
        description="Masks that let the server learn the sum of updates alone. None: it sees each update.",
    )
    incentive: Incentive | None = Field(
        default=None,
        description="Clients bid for a round; winners take part and are paid. None: population.selection "
        "chooses, and nobody is paid.",
    )
    network: Network = Field(description="What a round costs in simulated time and energy.")
    evaluation: Evaluation = Field(
        default=Evaluation(), description="What is measured and shown, and how often."
    )
    runtime: Runtime = Field(
        default=Runtime(),
        description="Where the work runs. Nothing here but threads, gang and base_precision can change a "
        "result.",
    )
    sweep: Sweep | None = Field(
        default=None, description="Variants of this scenario, each a run of its own. None: one run."
    )

    @property
    def payload(self) -> Payload:
        """The numbers' format on the air."""
        return self.tuning.payload or self.training.precision

    @property
    def keeps_client_state(self) -> bool:
        """Whether a client has a state of its own between its local updates."""
        kept = self.aggregation.keeps_state or bool(self.tuning.local) or self.model.trains_home
        return kept or (self.personal is not None and self.personal.keeps_state)

    @property
    def attackers(self) -> frozenset[int]:
        """The clients that attack at some time."""
        adversary = self.adversary
        return frozenset() if adversary is None else adversary.attackers(self.seed, self.population.clients)

    @property
    def has_collusion(self) -> bool:
        """Whether what attackers send is made from the updates of the others."""
        return self.adversary is not None and self.adversary.colludes

    @property
    def gathers_updates(self) -> bool:
        """Whether the server keeps each update of a round by itself, whatever the rule: attackers look at
        them, or clients are paid for what each of them adds."""
        return self.has_collusion or self.validation_images > 0

    @property
    def validation_images(self) -> int:
        """Of the test set, on which the server finds out what each update adds to the model."""
        return 0 if self.incentive is None else self.incentive.validation_images

    def attackers_in(self, round_number: int) -> frozenset[int]:
        """The clients that attack in a round."""
        begun = self.adversary is not None and round_number >= self.adversary.from_round
        return self.attackers if begun else frozenset()

    def bid_factor(self, client: int, round_number: int) -> float:
        """What a client bids in a round, as a multiple of its true cost."""
        misreports = self.adversary is not None and client in self.attackers_in(round_number)
        return self.adversary.bid_factor if self.adversary is not None and misreports else 1.0

    def weight(self, client: int, samples: int) -> int:
        """What a client that holds so many samples weighs in the mean: an attacker may claim to have more."""
        if self.adversary is not None and client in self.attackers:
            samples = max(1, round(samples * self.adversary.claimed_samples))
        return self.aggregation.weight(samples)

    def trains_nothing(self, client: int) -> bool:
        """Whether this client attacks without training."""
        return self.adversary is not None and not self.adversary.trains and client in self.attackers

    def local_batches(self, client: int, samples: int) -> list[int]:
        """The sizes of the batches of the local update of a client with so many samples."""
        return [] if self.trains_nothing(client) else self.training.batches(samples)

    def local_samples(self, client: int, samples: int) -> int:
        """How many samples a client with so many goes through in its local update."""
        return 0 if self.trains_nothing(client) else self.training.trained(samples)

    def own_samples(self, client: int, samples: int) -> int:
        """How many it goes through in steps for a model of its own, beside those."""
        if self.personal is None or self.trains_nothing(client):
            return 0
        return self.personal.own_samples(self.training, samples)

    @property
    def held_out_share(self) -> float:
        """Of each client's own samples, that nobody trains on."""
        if self.data.holdout is not None:
            return self.data.holdout
        return 0.0 if self.evaluation.clients is None else self.evaluation.clients.held_out_share

    @property
    def tested_clients(self) -> list[int]:
        """The clients that test a model on their own distributions: their own (`evaluation.clients`), or the
        global one (`data.holdout`)."""
        section = self.evaluation.clients
        if section is not None:
            tested = section.tested(self.seed, self.population.clients)
        else:
            tested = list(range(self.population.clients)) if self.data.holdout is not None else []
        return [client for client in tested if client not in self.attackers]

    @property
    def adds_to_master(self) -> bool:
        """Whether what hosts add up depends on the server's own fp32 numbers: where those on the air have
        less precision, and products are added up, or clients leave numbers out."""
        return self.payload != "fp32" and (self.aggregation.multiplies or self.tuning.has_mixed_ranks)

    @property
    def shows_server_state(self) -> bool:
        """Whether clients need what the server keeps, beside the model."""
        return self.adds_to_master or (self.privacy is not None and self.privacy.is_adaptive)

    @property
    def steps_without_updates(self) -> bool:
        """Whether the server takes its step in a round to which nobody contributed: one without noise would
        tell that nobody did."""
        return self.privacy is not None and self.privacy.adds_noise_to_sum

    def chain_weight(self, samples: Mapping[int, int]) -> int:
        """What the update of a relay's chain weighs, of whose clients each has so many samples."""
        if self.privacy is not None and self.privacy.adds_noise_to_sum:
            return 1  # whose length says nothing
        return sum(self.weight(client, n) for client, n in samples.items())

    @property
    def sites(self) -> dict[str, list[int]]:
        """Clients by the site whose samples they are; empty where samples may be opened anywhere."""
        return self.data.clients_at_sites()

    @property
    def split(self) -> Split:
        """The topology of one that is known to be a split."""
        assert self.topology.splits_model
        return self.topology  # type: ignore[return-value]

    @property
    def has_evaluation(self) -> bool:
        """Whether there is anything to evaluate."""
        return self.evaluates_model or self.evaluation.leakage is not None

    @property
    def evaluates_model(self) -> bool:
        """Whether what the model makes is looked at."""
        evaluation = self.evaluation
        model = self.model
        if evaluation.measures or evaluation.lm_eval is not None or self.adversary is not None:
            return True
        if model.evaluates_on_test_set and (self.data.has_test_set or not model.shows_samples):
            return self.data.has_test_set
        if model.shows_samples:
            return True
        if evaluation.denoising is not None and evaluation.denoising.measures(self):
            return True
        asked = (evaluation.prompts, evaluation.reference, evaluation.quality, evaluation.inference_cost)
        return any(asked)

    @property
    def closing_keys(self) -> list[str]:
        """The keys by which a round ends without some of its clients."""
        network = self.network
        population = self.population
        closing = {
            "network.deadline_s": network.deadline_s is not None,
            "population.over_select": population.over_select > 0,
            "network.device.dropout": any(device.dropout for device in network.devices),
            "network.availability": network.availability is not None,
            "outage_db or harq": network.may_lose,
        }
        return [key for key, closes in closing.items() if closes]

    @property
    def chooses_clients(self) -> bool:
        """Whether a round may be without some of the clients that there are."""
        population = self.population
        network = self.network
        if population.clients_per_round < population.clients or network.deadline_s is not None:
            return True
        if self.topology.asynchronous is not None:
            return True
        if network.may_lose or network.availability is not None:
            return True
        return any(d.availability < 1 or d.dropout for d in network.devices)

    @property
    def companion(self) -> Augmentation | None:
        """What the server does beside its clients' rounds."""
        return self.augmentation

    def companion_planner(self) -> Any:
        """What plans the companion's part of a round; None where there is no companion."""
        return None if self.companion is None else resolve(self.companion.planner)(self)

    @property
    def held_out_images(self) -> int:
        """Of the test set, that nothing is measured on."""
        held_out = self.augmentation.weighting.held_out_images if self.augmentation else 0
        return held_out or self.aggregation.clean_samples or self.validation_images

    @property
    def needs_label_counts(self) -> bool:
        """Whether clients report how many samples of each label they have."""
        if self.augmentation is not None or self.aggregation.weighs_by_quality:
            return True
        return self.population.needs_label_counts

    def is_evaluated(self, round_number: int) -> bool:
        """Whether the model is evaluated after a round."""
        every = self.evaluation.every
        return round_number == self.training.rounds or bool(every and round_number % every == 0)

    def cited(self) -> Iterator[str]:
        """Keys of BibTeX entries of exactly the methods that it uses."""
        yield from ("huang2023federated", "mcmahan2017communication")  # whose topologies and rounds these are
        for key, section in self.sections():
            if key:
                yield from section.cited()
        yield from self.model.cited_with(self.topology)
        if self.evaluation.leakage is not None:
            yield from self.evaluation.leakage.cited_with(self.model)
        if self.topology.splits_model and getattr(self.model, "objective", "") == "masked_language":
            yield "tian2022fedbert"

    def combinations(self) -> Iterator[Refused]:
        """Every pair of answers that does not go together."""
        for key, section in self.sections():
            if key:
                for refused in conflicts(section, self):
                    yield refused.within(key)
