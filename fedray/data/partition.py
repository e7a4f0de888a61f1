"""Which client holds which samples: index arrays, drawn once from the seed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedray.data import image_folder
from fedray.data.folders import composed
from fedray.data.samples import Array, Samples
from fedray.data.sources import open_source
from fedray.data.text import Texts
from fedray.randomness import SERVER, generator
from fedray.scenario.augmentation import HeldOut
from fedray.scenario.base import Refused
from fedray.scenario.data import ByFolder, Dirichlet, Iid, ImageFolder, Quantity, Shards
from fedray.scenario.scenario import Scenario

DRAWS = 100  # of a partition, until no client has too little


class Holdings(Mapping[int, np.ndarray]):
    """Which samples each client holds, as one array of indices and one of places in it: a hundred thousand
    clients are two arrays, not a hundred thousand."""

    def __init__(
        self,
        parts: Sequence[np.ndarray] | None = None,
        indices: np.ndarray | None = None,
        sizes: np.ndarray | None = None,
    ):
        """From one index array a client, or from all of them in a row and each client's number."""
        if parts is not None:
            indices, sizes = np.concatenate(parts), np.array([len(p) for p in parts])
        assert indices is not None
        assert sizes is not None
        self.indices, self.sizes = indices.astype(np.int32, copy=False), sizes
        self.ends = np.cumsum(sizes)

    def __getitem__(self, client: int) -> np.ndarray:
        return self.indices[self.ends[client] - self.sizes[client] : self.ends[client]]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.sizes)))

    def __len__(self) -> int:
        return len(self.sizes)


def partition(scenario: Scenario, samples: Samples) -> Holdings:
    """Sorted indices of each client.

    Raises:
        Refused: where folders and clients do not match, or a client would hold nothing.
    """
    clients, section = scenario.population.clients, scenario.data.partition
    if isinstance(section, ByFolder):
        return _by_folder(clients, samples)
    rng = generator(scenario.seed, 0, SERVER, "partition")
    n = len(samples)
    if isinstance(section, Iid):
        if section.samples:
            drawn = np.sort(rng.integers(n, size=(clients, section.samples), dtype=np.int32), axis=1)
            return Holdings(indices=drawn.ravel(), sizes=np.full(clients, section.samples))
        _enough(clients, n)
        return Holdings([np.sort(part) for part in np.array_split(rng.permutation(n), clients)])
    if isinstance(section, Shards):
        _enough(clients * section.per_client, n)
        shards = np.array_split(np.argsort(samples.labels, kind="stable"), clients * section.per_client)
        dealt = rng.permutation(len(shards)).reshape(clients, section.per_client)
        return Holdings([np.sort(np.concatenate([shards[i] for i in mine])) for mine in dealt])
    if isinstance(section, Dirichlet) and section.samples:
        return _mixes(section.alpha, section.samples, clients, samples.labels, rng)
    least = 0 if section.allow_empty else section.min_samples
    _enough(clients * least, n)

    def draw(alpha: float) -> Holdings:
        if isinstance(section, Quantity):
            groups = [rng.permutation(n)]
            owners = [_owners(n, alpha, clients, rng)]
        else:
            groups, owners = [], []
            for label in np.unique(samples.labels):
                groups.append(rng.permutation(np.flatnonzero(samples.labels == label)))
                owners.append(_owners(len(groups[-1]), alpha, clients, rng))
        indices, of = np.concatenate(groups), np.concatenate(owners)
        return Holdings(indices=indices[np.lexsort((indices, of))], sizes=np.bincount(of, minlength=clients))

    held = _least(draw, section.alpha, least)
    if held is None:
        alphas = (section.alpha * 2**k for k in range(1, 24))
        alpha = next((a for a in alphas if _least(draw, a, least, draws=3) is not None), None)
        enough = f"at least {alpha:g} for {clients} clients of {least} samples or more, " if alpha else ""
        got = f"{section.alpha:g}, which leaves a client less than {least} samples in {DRAWS} draws"
        raise Refused(
            "data.partition.alpha", got, f"{enough}a smaller min_samples, fewer clients, or allow_empty: true"
        )
    return held


def _least(
    draw: Callable[[float], Holdings], alpha: float, least: int, draws: int = DRAWS
) -> Holdings | None:
    """The first draw that leaves no client less."""
    for _ in range(draws):
        held = draw(alpha)
        if held.sizes.min() >= least:
            return held
    return None


def _owners(n: int, alpha: float, clients: int, rng: np.random.Generator) -> np.ndarray:
    """The client of each of n samples in a row, int [n]: parts whose sizes are as Dir(alpha)."""
    shares = rng.dirichlet(np.full(clients, alpha))
    borders = np.round(np.cumsum(shares)[:-1] * n).astype(int)
    return np.searchsorted(borders, np.arange(n), side="right")


def _mixes(alpha: float, each: int, clients: int, labels: np.ndarray, rng: np.random.Generator) -> Holdings:
    """Each client draws a mix of the K labels q ~ Dir(alpha K p), then its samples from it, with replacement
    (Hsu et al. 2019, whose alpha is alpha K here)."""
    names, counts = np.unique(labels, return_counts=True)
    by_label = np.argsort(labels, kind="stable")
    first = np.cumsum(counts) - counts
    mixes = rng.dirichlet(alpha * counts / counts.sum() * len(names), size=clients)
    places = np.empty((clients, each), np.int32)
    for client, borders in enumerate(np.cumsum(mixes, axis=1)):
        drawn = np.searchsorted(borders[:-1], rng.random(each))  # numbers of labels
        places[client] = np.sort(by_label[first[drawn] + (rng.random(each) * counts[drawn]).astype(int)])
    return Holdings(indices=places.ravel(), sizes=np.full(clients, each))


def _by_folder(clients: int, samples: Samples) -> Holdings:
    folders = sorted(set(samples.groups))
    if folders == [""]:
        raise Refused(
            "data.partition",
            "folder, with all images in one",
            "one folder a client, or partition {kind: iid}",
        )
    if len(folders) != clients:
        listed = ", ".join(map(repr, folders[:6])) + (", ..." if len(folders) > 6 else "")
        raise Refused(
            "population.clients",
            f"{clients} for {len(folders)} folders ({listed})",
            f"{len(folders)}, one a folder",
        )
    groups = np.asarray(samples.groups)
    return Holdings([np.flatnonzero(groups == folder) for folder in folders])


def _enough(parts: int, samples: int) -> None:
    if samples < parts:
        expected = "at most as many clients (or shards, or min_samples a client) as samples"
        raise Refused("population.clients", f"{parts} parts of {samples} samples", expected)


def holdings(
    scenario: Scenario, folder: Path, site: str | None = None
) -> tuple[Samples, Mapping[int, np.ndarray]]:
    """The samples that a host may open, and which of them each client holds: every client's, or with
    `data.sites` those of the clients at the host's own site.

    Raises:
        Refused: where files are missing, or do not fit the clients.
    """
    data = scenario.data
    if isinstance(data, ImageFolder) and data.caption is None and scenario.model.kind != "text_to_image":
        data = data.model_copy(update={"caption": ""})  # nobody reads it
    if not isinstance(data, ImageFolder) or data.sites is None:
        samples = open_source(data, folder)
        return samples, partition(scenario, samples)
    assert site is not None
    section, key = data.sites[site], f"data.sites.{site}"
    path, everybody = (
        section.path or data.path,
        [name for each in data.sites.values() for name in each.folders],
    )
    samples = image_folder.read(
        path, folder, key, data.caption_key, data.caption, section.folders, clients=True, closed=everybody
    )
    groups = np.asarray(samples.groups)
    held = {
        c: np.flatnonzero(groups == composed(name))
        for c, name in zip(data.clients_at(site), section.folders, strict=True)
    }
    return samples, held


def test_split(scenario: Scenario, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of n test images: those held out for augmentation's weights, and those that accuracy is told
    of."""
    weighting = scenario.augmentation.weighting if scenario.augmentation else None
    held_out = weighting.images if isinstance(weighting, HeldOut) else 0
    if held_out >= n:
        raise Refused("augmentation.weighting.images", held_out, f"less than the {n} images of the test set")
    order = generator(scenario.seed, 0, SERVER, "held out").permutation(n) if held_out else np.arange(n)
    return np.sort(order[:held_out]), np.sort(order[held_out:])


@dataclass(frozen=True)
class Census:
    """How labels are spread: partition.json."""

    labels: list[str]
    counts: list[list[int]]  # a row a client, a column a label
    # Earth mover's distance of each client's mix of labels to the population's, sum_y |p_k(y) - p(y)| (Zhao
    # et al. 2018): 0 as everybody, towards 2 alone with a rare label. None for a client without samples.
    emd: list[float | None]


def census(samples: Samples, held: Mapping[int, np.ndarray]) -> Census:
    counts = label_counts(samples, held)
    return Census(
        list(samples.label_names), counts.tolist(), rounded_or_none(distance(counts, counts.sum(0)), counts)
    )


def label_counts(samples: Samples, held: Mapping[int, np.ndarray]) -> np.ndarray:
    """What each client holds of each label, int [clients, labels]."""
    return np.stack(
        [np.bincount(samples.labels[held[c]], minlength=len(samples.label_names)) for c in range(len(held))]
    )


def distance(counts: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Earth mover's distance of mixes of labels [..., labels] to that of `to`, sum_y |p(y) - q(y)| (Zhao et
    al. 2018)."""
    mix = counts / np.maximum(counts.sum(-1, keepdims=True), 1e-12)
    found: np.ndarray = np.abs(mix - to / to.sum()).sum(-1)
    return found


def rounded_or_none(distances: np.ndarray, counts: np.ndarray) -> list[float | None]:
    """Each client's, for a file; None for one that holds nothing."""
    return [round(float(d), 6) if n else None for d, n in zip(distances, counts.sum(1), strict=True)]


def unreadable(samples: Samples, held: Mapping[int, np.ndarray]) -> Iterator[Refused]:
    """Every image that cannot be read, with its client. Decodes all of them; texts have been read whole."""
    if isinstance(samples, Texts):
        return
    if isinstance(samples, Array):
        try:
            samples.load()
        except ValueError as e:
            yield Refused("data.path", str(e), "files that are whole")
        return

    def attempt(place: tuple[int, int]) -> Refused | None:
        client, i = place
        try:
            samples.image(i)
        except ValueError as e:
            return Refused("data.path", f"client {client}: {e}", "images that open")
        return None

    with ThreadPoolExecutor(4) as pool:
        yield from filter(None, pool.map(attempt, ((c, int(i)) for c, part in held.items() for i in part)))
