"""Kinds of partitions: which client has which samples, drawn once from the seed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from fedray.data.clients import Holdings
from fedray.data.samples import Samples
from fedray.scenario.base import Refused
from fedray.scenario.kinds import implementation
from fedray.scenario.partition import (
    ByColumn,
    ByFolder,
    Dirichlet,
    Iid,
    PartitionSection,
    Pooled,
    Quantity,
    Shards,
)

DRAWS = 100  # of a partition, until no client has too little


class Partition(ABC):
    """Which client has which samples. A partition of one's own in which clients take turns:

        class RoundRobin(fedray.Partition):
            def deal(self, samples, clients, rng):
                return [np.arange(client, len(samples), clients) for client in range(clients)]

    Args:
        section: the scenario's `data.partition`.
    """

    Section: ClassVar[type[PartitionSection]] = PartitionSection

    def __init__(self, section: Any) -> None:
        self.section = section

    @abstractmethod
    def deal(
        self, samples: Samples, clients: int, rng: np.random.Generator
    ) -> Holdings | Sequence[np.ndarray]:
        """Indices of each client's samples, ascending.

        Args:
            samples: to be dealt.
            clients: how many there are.
            rng: what is drawn comes from it alone.

        Raises:
            Refused: where folders and clients do not match, or a client would have nothing.
        """


class ByFolderPartition(Partition):
    section: ByFolder

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Holdings:
        if set(samples.groups) == {""}:
            got = f"folder, with all {'images' if samples.has_images else 'samples'} in one"
            raise Refused("data.partition", got, "one folder a client, or partition {kind: iid}")
        return _one_each(samples.groups, clients, "folder", "folders")


class ByColumnPartition(Partition):
    section: ByColumn

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Holdings:
        column = self.section.column
        values = samples.column(column)
        types = sorted({type(value).__name__ for value in values})
        if len(types) > 1:
            got = f"{column!r}, whose values are of {' and '.join(types)}"
            raise Refused("data.partition.column", got, "values of one type, which have an order")
        return _one_each(values, clients, f"value of {column}", f"values of {column}")


class IidPartition(Partition):
    section: Iid

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Holdings:
        n = len(samples)
        each = self.section.samples
        if each:
            drawn = np.sort(rng.integers(n, size=(clients, each), dtype=np.int32), axis=1)
            return Holdings(indices=drawn.ravel(), sizes=np.full(clients, each))
        refuse_too_few(clients, n)
        dealt = rng.permutation(n)
        sizes = np.full(clients, n // clients)
        sizes[: n % clients] += 1
        owner = np.repeat(np.arange(clients, dtype=np.int32), sizes)
        return Holdings(indices=dealt[np.lexsort((dealt, owner))], sizes=sizes)


class ShardsPartition(Partition):
    section: Shards

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Holdings:
        per_client = self.section.per_client
        refuse_too_few(clients * per_client, len(samples))
        shards = np.array_split(np.argsort(samples.labels, kind="stable"), clients * per_client)
        numbers = rng.permutation(len(shards)).reshape(clients, per_client)
        return Holdings([np.sort(np.concatenate([shards[i] for i in row])) for row in numbers])


class UnevenPartition(Partition):
    """One whose parts are as Dir(alpha), drawn again until no client has too little."""

    section: Dirichlet | Quantity

    @abstractmethod
    def draw(self, samples: Samples, clients: int, alpha: float, rng: np.random.Generator) -> Holdings:
        """One draw.

        Args:
            samples: that are dealt.
            clients: how many.
            alpha: the concentration.
            rng: of the draw.
        """

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Holdings:
        section = self.section
        least = 0 if section.allow_empty else section.min_samples
        refuse_too_few(clients * least, len(samples))

        def draw(alpha: float) -> Holdings:
            return self.draw(samples, clients, alpha, rng)

        first = _first_with(draw, section.alpha, least)
        if first is not None:
            return first
        alphas = (section.alpha * 2**k for k in range(1, 24))
        alpha = next((a for a in alphas if _first_with(draw, a, least, draws=3) is not None), None)
        advice = f"at least {alpha:g} for {clients} clients of {least} samples or more, " if alpha else ""
        got = f"{section.alpha:g}, which leaves a client less than {least} samples in {DRAWS} draws"
        expected = f"{advice}a smaller min_samples, fewer clients, or allow_empty: true"
        raise Refused("data.partition.alpha", got, expected)


class QuantityPartition(UnevenPartition):
    def draw(self, samples: Samples, clients: int, alpha: float, rng: np.random.Generator) -> Holdings:
        n = len(samples)
        indices = rng.permutation(n)
        return _by_client(indices, _clients_of(n, alpha, clients, rng), clients)


class DirichletPartition(UnevenPartition):
    section: Dirichlet

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Holdings:
        if self.section.samples:
            return _mixes(self.section.alpha, self.section.samples, clients, samples.labels, rng)
        return super().deal(samples, clients, rng)

    def draw(self, samples: Samples, clients: int, alpha: float, rng: np.random.Generator) -> Holdings:
        indices: list[np.ndarray] = []
        clients_of: list[np.ndarray] = []
        for label in np.unique(samples.labels):
            indices.append(rng.permutation(np.flatnonzero(samples.labels == label)))
            clients_of.append(_clients_of(len(indices[-1]), alpha, clients, rng))
        return _by_client(np.concatenate(indices), np.concatenate(clients_of), clients)


class PooledPartition(Partition):
    section: Pooled

    def deal(self, samples: Samples, clients: int, rng: np.random.Generator) -> Holdings:
        given = self.given(samples, rng)
        return Holdings([np.sort(np.concatenate(given))])

    def given(self, samples: Samples, rng: np.random.Generator) -> list[np.ndarray]:
        """What each client gives."""
        section = self.section
        held = implementation(section.of)(section.of).deal(samples, section.clients, rng)
        parts = [np.asarray(held[client]) for client in range(section.clients)]
        if section.samples is None:
            return parts
        return [rng.choice(part, min(section.samples, len(part)), replace=False) for part in parts]


def _one_each(owners: Sequence[Any], clients: int, one: str, several: str) -> Holdings:
    """Each name's samples are a client's, in the order of the names.

    Args:
        owners: the name of each sample's owner [n], all of them texts or all of them numbers.
        clients: how many there are.
        one: what an owner is, in messages.
        several: the same of more than one.

    Raises:
        Refused: where names and clients do not match.
    """
    names = sorted(set(owners))
    if len(names) != clients:
        listed = ", ".join(map(repr, names[:6])) + (", ..." if len(names) > 6 else "")
        got = f"{clients} for {len(names)} {several} ({listed})"
        raise Refused("population.clients", got, f"{len(names)}, one a {one}")
    client_of = {name: client for client, name in enumerate(names)}
    clients_of = np.array([client_of[name] for name in owners], np.int64)
    return Holdings(
        indices=np.argsort(clients_of, kind="stable"), sizes=np.bincount(clients_of, minlength=clients)
    )


def refuse_too_few(parts: int, samples: int) -> None:
    """Raises Refused where not every part gets a sample."""
    if samples < parts:
        expected = "at most as many clients (or shards, or min_samples a client) as samples"
        raise Refused("population.clients", f"{parts} parts of {samples} samples", expected)


def _first_with(
    draw: Callable[[float], Holdings], alpha: float, least: int, draws: int = DRAWS
) -> Holdings | None:
    """The first draw that leaves no client less; None where none of so many does.

    Args:
        draw: given the concentration.
        alpha: the concentration.
        least: samples of every client.
        draws: to be tried.
    """
    for _ in range(draws):
        drawn = draw(alpha)
        if drawn.sizes.min() >= least:
            return drawn
    return None


def _by_client(indices: np.ndarray, clients_of: np.ndarray, clients: int) -> Holdings:
    """Each client's indices, ascending, of all of them and the client of each [n]."""
    sizes = np.bincount(clients_of, minlength=clients)
    return Holdings(indices=indices[np.lexsort((indices, clients_of))], sizes=sizes)


def _clients_of(n: int, alpha: float, clients: int, rng: np.random.Generator) -> np.ndarray:
    """The client of each of n samples in a row, int [n]: parts whose sizes are as Dir(alpha).

    Args:
        n: samples.
        alpha: the concentration.
        clients: how many there are.
        rng: is drawn from once.
    """
    shares = rng.dirichlet(np.full(clients, alpha))
    borders = np.round(np.cumsum(shares)[:-1] * n).astype(int)
    return np.searchsorted(borders, np.arange(n), side="right")


def _mixes(alpha: float, each: int, clients: int, labels: np.ndarray, rng: np.random.Generator) -> Holdings:
    """Each client draws a mix of the K labels q ~ Dir(alpha K p), then its samples from it, with replacement
    (Hsu et al. 2019, whose alpha is alpha K here).

    Args:
        alpha: the concentration.
        each: samples of each client.
        clients: how many there are.
        labels: of all samples [n].
        rng: is drawn from.
    """
    names, counts = np.unique(labels, return_counts=True)
    by_label = np.argsort(labels, kind="stable")
    first = np.cumsum(counts) - counts
    mixes = rng.dirichlet(alpha * counts / counts.sum() * len(names), size=clients)
    indices = np.empty((clients, each), np.int32)
    for client, borders in enumerate(np.cumsum(mixes, axis=1)):
        drawn = np.searchsorted(borders[:-1], rng.random(each))  # numbers of labels
        indices[client] = np.sort(by_label[first[drawn] + (rng.random(each) * counts[drawn]).astype(int)])
    return Holdings(indices=indices.ravel(), sizes=np.full(clients, each))
