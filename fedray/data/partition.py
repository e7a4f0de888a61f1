"""Which client holds which samples: index arrays, drawn once from the seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fedray.data.sources import Samples
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


def unreadable(samples: Samples, parts: Sequence[np.ndarray]) -> Iterator[Refused]:
    """Every image that cannot be read, with its client. Decodes all of them."""

    def read(place: tuple[int, int]) -> Refused | None:
        client, i = place
        try:
            samples.image(i)
        except ValueError as e:
            return Refused("data.path", f"client {client}: {e}", "images that open")
        return None

    with ThreadPoolExecutor(4) as pool:
        yield from filter(None, pool.map(read, ((c, int(i)) for c, part in enumerate(parts) for i in part)))


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(n) for n in names[:6]) + (", ..." if len(names) > 6 else "")
