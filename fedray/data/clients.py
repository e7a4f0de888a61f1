"""Which client has which of the samples that can be opened here."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fedray.data.client_tests import matched, split_own
from fedray.data.dataset import Dataset
from fedray.data.samples import Samples
from fedray.randomness import SERVER, generator
from fedray.scenario.base import Refused
from fedray.scenario.kinds import implementation
from fedray.scenario.partition import PartitionSection
from fedray.scenario.scenario import Scenario


class Holdings(Mapping[int, np.ndarray]):
    """Which samples each client has, as one array of indices and one of places in it: a hundred thousand
    clients are two arrays, not a hundred thousand.

    Args:
        parts: one array of indices a client; or else both of:
        indices: all of them in a row, client after client.
        sizes: how many each client has.
    """

    def __init__(
        self,
        parts: Sequence[np.ndarray] | None = None,
        indices: np.ndarray | None = None,
        sizes: np.ndarray | None = None,
    ) -> None:
        if parts is not None:
            indices = np.concatenate(parts)
            sizes = np.array([len(part) for part in parts])
        assert indices is not None
        assert sizes is not None
        self.indices = indices.astype(np.int32, copy=False)
        self.sizes = sizes
        self.ends = np.cumsum(sizes)

    def __getitem__(self, client: int) -> np.ndarray:
        return self.indices[self.ends[client] - self.sizes[client] : self.ends[client]]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.sizes)))

    def __len__(self) -> int:
        return len(self.sizes)


def partition(scenario: Scenario, samples: Samples) -> Holdings:
    """Indices of each client, that it trains on: what the scenario's partition deals out of the seed, without
    what is held out of it for the client's test.

    Raises:
        Refused: where folders and clients do not match, or a client would have nothing.
    """
    if not scenario.held_out_share:
        return _dealt(scenario, samples)
    return Holdings([trained for trained, _ in _halves(scenario, samples)])


def _halves(scenario: Scenario, samples: Samples) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each client, the samples that it trains on and those that are held out. Of pooled ones these are
    what each client who gave some would hold out itself, so that both are measured alike."""
    section = scenario.data.partition
    if scenario.data.holdout is None or not section.pools:
        return [_split(scenario, client, part) for client, part in _dealt(scenario, samples).items()]
    given = implementation(section)(section).given(samples, _dealing(scenario))
    halves = [_split(scenario, client, part) for client, part in enumerate(given)]
    trained, kept = (np.sort(np.concatenate(parts)) for parts in zip(*halves, strict=True))
    return [(trained, kept)]


def _split(scenario: Scenario, client: int, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A client's own samples: those that it trains on, and those that are held out.

    Raises:
        Refused: where `data.holdout` leaves it nothing of either.
    """
    share = scenario.held_out_share
    n = len(indices)
    if scenario.data.holdout is not None and n and max(1, round(share * n)) >= n:
        got = f"{share:g} of client {client}'s {n} sample{'s' if n > 1 else ''}, which leaves it none"
        raise Refused("data.holdout", got, "a share that leaves each client some to train on")
    return split_own(indices, share, scenario.seed, client)


def _dealing(scenario: Scenario) -> np.random.Generator:
    return generator(scenario.seed, 0, SERVER, "partition")


def _dealt(scenario: Scenario, samples: Samples) -> Holdings:
    section = scenario.data.partition
    clients = scenario.population.clients
    parts = implementation(section)(section).deal(samples, clients, _dealing(scenario))
    if isinstance(parts, Holdings):
        return parts
    _refuse_misdealt(section, parts, clients, len(samples))
    return Holdings(parts)


def _refuse_misdealt(section: PartitionSection, parts: Sequence[np.ndarray], clients: int, n: int) -> None:
    """What a partition of one's own may get wrong."""
    key = "data.partition.kind"
    if len(parts) != clients:
        raise Refused(key, f"{section.kind!r}, which deals {len(parts)} parts", f"{clients}, one a client")
    for client, part in enumerate(parts):
        if not len(part) and not section.leaves_empty:
            got = f"{section.kind!r}, which leaves client {client} without samples"
            raise Refused(key, got, "some for each, or a Section whose leaves_empty is true")
        if len(part) and not 0 <= np.min(part) <= np.max(part) < n:
            got = f"{section.kind!r}, which gives client {client} samples {np.min(part)} to {np.max(part)}"
            raise Refused(key, got, f"indices from 0 to {n - 1}")


def holdings(
    scenario: Scenario, folder: Path, site: str | None = None, dataset: Dataset | None = None
) -> tuple[Samples, Mapping[int, np.ndarray]]:
    """The samples that a host may open, and which of them each client has: every client's, or with samples at
    sites those of the clients at the host's own.

    Args:
        scenario: of which `data`, `population` and `seed` say which client has what.
        folder: where its relative paths start.
        site: the host's.
        dataset: the scenario's data, where they are open already.

    Raises:
        Refused: where files are missing, or do not fit the clients.
    """
    dataset = dataset or Dataset.of(scenario, folder)
    if not dataset.section.clients_at_sites():
        return dataset.train, partition(scenario, dataset.train)
    samples, held = _at_site(dataset, site)
    if scenario.held_out_share:
        held = {client: _split(scenario, client, indices)[0] for client, indices in held.items()}
    return samples, held


def _at_site(dataset: Dataset, site: str | None) -> tuple[Samples, Mapping[int, np.ndarray]]:
    assert site is not None
    return dataset.source.open_at_site(site)


def held_out(
    scenario: Scenario, folder: Path, site: str | None = None, dataset: Dataset | None = None
) -> tuple[Samples, Mapping[int, np.ndarray]]:
    """The samples that a host may open, and which of them are held out of each client's training; arguments
    and errors are those of `holdings`.

    Args:
        scenario: whose `data.holdout` or `evaluation.clients` says how many.
        folder: where its relative paths start.
        site: the host's.
        dataset: the scenario's data, where they are open already.
    """
    dataset = dataset or Dataset.of(scenario, folder)
    if not dataset.section.clients_at_sites():
        return dataset.train, dict(enumerate(part for _, part in _halves(scenario, dataset.train)))
    samples, held = _at_site(dataset, site)
    return samples, {client: _split(scenario, client, part)[1] for client, part in held.items()}


def _whole(
    scenario: Scenario, dataset: Dataset, site: str | None
) -> tuple[Samples, Mapping[int, np.ndarray]]:
    """All that each client has, whether or not it trains on it."""
    if dataset.section.clients_at_sites():
        return _at_site(dataset, site)
    return dataset.train, _dealt(scenario, dataset.train)


def holdings_for_tests(
    scenario: Scenario, folder: Path, site: str | None = None, dataset: Dataset | None = None
) -> tuple[Samples, Mapping[int, np.ndarray]]:
    """The samples that clients' own models are tested on, and which of them each client has; arguments and
    errors are those of `holdings`.

    Args:
        scenario: whose `evaluation.clients` says which.
        folder: where its relative paths start.
        site: the host's.
        dataset: the scenario's data, where they are open already.
    """
    section = scenario.evaluation.clients
    assert section is not None
    if section.held_out_share:
        return held_out(scenario, folder, site, dataset)
    dataset = dataset or Dataset.of(scenario, folder)
    samples, held = _whole(scenario, dataset, site)
    places = split_test_set(scenario, len(dataset.test))[1]
    return dataset.test, matched(samples, held, dataset.test, places, scenario.seed)


def split_test_set(scenario: Scenario, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of n test images: those held out, for augmentation's weights, for the server to train on or to
    validate updates, and those that are measured on."""
    held_out = scenario.held_out_images
    if held_out >= n:
        key = "augmentation.weighting.images"
        if scenario.aggregation.clean_samples:
            key = "aggregation.root_samples"
        elif scenario.validation_images:
            key = "incentive.images"
        raise Refused(key, held_out, f"less than the {n} images of the test set")
    order = generator(scenario.seed, 0, SERVER, "held out").permutation(n) if held_out else np.arange(n)
    return np.sort(order[:held_out]), np.sort(order[held_out:])
