"""Which client holds which samples: index arrays, drawn once from the seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fedray.data.image_folder import read
from fedray.data.sources import Samples, open_source
from fedray.randomness import SERVER, generator
from fedray.scenario.base import Refused
from fedray.scenario.scenario import Scenario


def partition(scenario: Scenario, samples: Samples) -> list[np.ndarray]:
    """One sorted index array a client; together they hold every sample once.

    Raises:
        Refused: where folders and clients do not match, or a client would hold nothing.
    """
    clients = scenario.population.clients
    if scenario.data.partition.kind == "folder":
        folders = sorted(set(samples.groups))
        if folders == [""]:
            raise Refused("data.partition", "folder, with all images in one", "one folder a client, or partition {kind: iid}")
        if len(folders) != clients:
            raise Refused("population.clients", f"{clients} for {len(folders)} folders ({_some(folders)})", f"{len(folders)}, one a folder")
        groups = np.asarray(samples.groups)
        return [np.flatnonzero(groups == folder) for folder in folders]
    if len(samples) < clients:
        raise Refused("population.clients", f"{clients} for {len(samples)} samples", "at most as many clients as samples")
    order = generator(scenario.seed, 0, SERVER, "partition").permutation(len(samples))
    return [np.sort(part) for part in np.array_split(order, clients)]


def holdings(scenario: Scenario, folder: Path, site: str | None = None) -> tuple[Samples, dict[int, np.ndarray]]:
    """The samples that a host may open, and which of them each client holds: every client's, or with `data.sites` those
    of the clients at the host's own site.

    Raises:
        Refused: where files are missing, or do not fit the clients.
    """
    data = scenario.data
    if data.kind != "image_folder" or data.sites is None:
        samples = open_source(data, folder)
        return samples, dict(enumerate(partition(scenario, samples)))
    assert site is not None
    section, key = data.sites[site], f"data.sites.{site}"
    samples = read(section.path or data.path, folder, key, data.caption_key, data.caption, section.folders)
    groups = np.asarray(samples.groups)
    return samples, {c: np.flatnonzero(groups == name) for c, name in zip(data.clients_at(site), section.folders, strict=True)}


def unreadable(samples: Samples, held: Mapping[int, np.ndarray]) -> Iterator[Refused]:
    """Every image that cannot be read, with its client. Decodes all of them."""

    def attempt(place: tuple[int, int]) -> Refused | None:
        client, i = place
        try:
            samples.image(i)
        except ValueError as e:
            return Refused("data.path", f"client {client}: {e}", "images that open")
        return None

    with ThreadPoolExecutor(4) as pool:
        yield from filter(None, pool.map(attempt, ((c, int(i)) for c, part in held.items() for i in part)))


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(n) for n in names[:6]) + (", ..." if len(names) > 6 else "")
