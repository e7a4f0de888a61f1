"""What the server knows of its clients before they train."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedray.data import Dataset, Samples
from fedray.data.census import label_counts
from fedray.data.samples import Array
from fedray.data.sources import to_download
from fedray.planning.bidding import Agreement
from fedray.planning.data_quality import relative_errors
from fedray.randomness import generator
from fedray.scenario import Loaded, Refused
from fedray.scenario.scenario import Scenario


@dataclass(frozen=True)
class Shared:
    """What the server knows of its clients before they train."""

    samples: Sequence[int]  # that each has
    counts: np.ndarray | None = None  # of each label, as they report them [clients, labels]
    true_counts: np.ndarray | None = None  # the same as they are, where samples are audited
    # who takes part in every round, and what each is paid, where that is decided before the first
    agreed: Agreement | None = None
    label_names: Sequence[str] = ()
    # by client, of the last round in which it trained: its loss as a multiple of the mean over the round's
    # clients; it grows with the rounds
    errors: dict[int, float] = field(default_factory=dict)

    def add_losses(self, losses: Mapping[int, float]) -> None:
        """What the clients of a round report, of those that trained."""
        self.errors.update(relative_errors(losses))

    def eligible(self, scenario: Scenario) -> np.ndarray:
        """The clients that can be asked to train: a partition may leave some without samples."""
        if scenario.data.partition.leaves_empty:
            return np.flatnonzero(self.samples)
        return np.arange(scenario.population.clients)


def samples_to_come(loaded: Loaded, dataset: Dataset) -> Samples | None:
    """What stands for data that are not there yet, and will be downloaded; None where they are.

    Raises:
        Refused: where more than their number has to be known.
    """
    scenario = loaded.scenario
    data = scenario.data
    coming = to_download(data, loaded.folder)
    if coming is None:
        return None
    needs_labels = data.partition.by_label or scenario.population.selection != "random"
    if needs_labels and not data.labels_known_before_download:
        raise Refused(
            "data.partition.kind",
            f"labels of {data.called} that are not there yet",
            "a partition without labels, or the data",
        )
    # equally many of each, or it does not matter which they are
    names = dataset.info.label_names
    return Array(lambda: np.empty(0, np.uint8), np.arange(coming) % len(names), names)


def shared(scenario: Scenario, samples: Samples, indices: Mapping[int, np.ndarray]) -> Shared:
    """As the clients report it, where somebody asks for labels."""
    sizes = [len(indices[c]) for c in range(len(indices))]
    names = tuple(samples.label_names)
    if not scenario.needs_label_counts:
        return Shared(sizes, label_names=names)
    audits = scenario.incentive is not None and scenario.incentive.bids_for == "labels"
    truth = label_counts(samples, indices) if audits else None
    return Shared(sizes, reported_counts(scenario, samples, indices), truth, label_names=names)


def reported_counts(scenario: Scenario, samples: Samples, indices: Mapping[int, np.ndarray]) -> np.ndarray:
    """What each client says it has of each label, int [clients, labels]; with `population.label_epsilon`
    under Laplace noise of scale 1 / epsilon (one sample more or less changes one count by one), rounded, and
    never below zero (Qiang et al. 2024, Sec. III-A)."""
    counts = _misreported(scenario, label_counts(samples, indices))
    epsilon = scenario.population.label_epsilon
    if epsilon is None:
        return counts
    draws = (generator(scenario.seed, 0, c, "label counts") for c in range(len(indices)))
    noise = np.stack([rng.laplace(scale=1 / epsilon, size=len(samples.label_names)) for rng in draws])
    return np.maximum(np.rint(counts + noise), 0).astype(int)


def _misreported(scenario: Scenario, counts: np.ndarray) -> np.ndarray:
    """Counts of labels [clients, labels] with those that attackers report where labels are paid for: in
    proportion to the power of the attack's factor, and as many in all."""
    if scenario.incentive is None or scenario.incentive.bids_for != "labels":
        return counts
    reported = counts.copy()
    for client in scenario.attackers:
        raised = counts[client] ** scenario.bid_factor(client, scenario.training.rounds)
        reported[client] = np.rint(raised * (counts[client].sum() / max(raised.sum(), 1)))
    return reported
