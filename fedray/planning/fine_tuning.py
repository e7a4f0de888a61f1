"""The fine-tuning of a generator that comes before another scenario's first round: its scenario, and what is
collected for it."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedray.data import Dataset
from fedray.data.partition import PooledPartition
from fedray.network.clock import time_round
from fedray.network.ledger import Event, Ledger
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.shared import samples_to_come
from fedray.randomness import SERVER, SERVER_ID, generator
from fedray.scenario import Loaded, Refused
from fedray.scenario.load import load_text
from fedray.schedule import Schedule
from fedray.steps import Aggregate, Send, Step

# images have their own bytes, and nothing else is done
TRANSFERS_ALONE = Work(lambda client, pictures: 0.0, lambda direction, client: 0, lambda updates: 0.0)


def fine_tuning(loaded: Loaded) -> Loaded | None:
    """The scenario of the fine-tuning that comes first; None where none does.

    Raises:
        ScenarioError: for one that cannot be.
    """
    tree = _by_clients(loaded)
    if tree is None:
        return None
    section = loaded.scenario.augmentation.tune_first  # type: ignore[union-attr]
    return _of(loaded, section.collected(tree) if section.collects else tree)  # type: ignore[union-attr]


def _by_clients(loaded: Loaded) -> dict[str, Any] | None:
    """The values of the scenario in which clients do the fine-tuning."""
    scenario = loaded.scenario
    augmentation = scenario.augmentation
    if scenario.sweep is not None or augmentation is None or augmentation.tune_first is None:
        return None
    return augmentation.tune_first.of(loaded.absolute(), scenario.network.uplink.slows_devices)


def _of(loaded: Loaded, tree: dict[str, Any]) -> Loaded:
    return load_text(json.dumps(tree), loaded.file, code=tuple(loaded.code_folders), mapping=True)


@dataclass(frozen=True)
class Collection:
    """Images that clients send to the server before it fine-tunes.

    Attributes:
        images: of each client.
        events: the transfers, and their end.
    """

    images: tuple[int, ...]
    events: list[Event]

    @property
    def ledger(self) -> Ledger:
        """What it costs."""
        return Ledger().add(self.events)

    @property
    def note(self) -> str:
        """What a person should know of it."""
        senders = sum(n > 0 for n in self.images)
        sent = f"{sum(self.images):,} images of {senders} clients ({self.ledger.bytes_uplink:,} bytes)"
        return f"{sent} leave them for the server, which fine-tunes the generator on them"

    def row(self) -> dict[str, Any]:
        """As collection.json has it."""
        events = [event.row() for event in self.events]
        return {"images": self.images, "total": self.ledger.totals(), "events": events}


def collect(loaded: Loaded) -> Collection | None:
    """What is collected for the fine-tuning that comes before a scenario's first round, over its network;
    None where nothing is.

    Raises:
        ScenarioError: where a client's images do not arrive.
    """
    tree = _by_clients(loaded)
    first = fine_tuning(loaded)
    section = loaded.scenario.augmentation and loaded.scenario.augmentation.tune_first
    if tree is None or first is None or not section or not section.collects:
        return None
    images = _given(first)
    by_clients = _of(loaded, tree).scenario
    radio = Radio(by_clients.network, by_clients.population.clients, by_clients.seed, loaded.folder)
    size = _image_bytes(loaded, first)
    steps: list[Step] = [
        Send(f"images-{k}", k, SERVER_ID, "uplink", bytes=n * size) for k, n in enumerate(images) if n
    ]
    steps.append(Aggregate("collect", tuple(step.id for step in steps)))
    events = time_round(Schedule(0, tuple(steps)), TRANSFERS_ALONE, radio, 0.0)
    if lost := [event.node for event in events if event.outcome != "done"]:
        got = f"collected over an uplink that does not reach {', '.join(lost[:6])}"
        raise loaded.error([Refused("augmentation.tune_first.kind", got, "federated, or clients in reach")])
    return Collection(images, events)


def _given(first: Loaded) -> tuple[int, ...]:
    """How many images each client gives for a fine-tuning by the server."""
    scenario = first.scenario
    dataset = Dataset.of(scenario, first.folder)
    samples = samples_to_come(first, dataset) or dataset.train
    rng = generator(scenario.seed, 0, SERVER, "partition")
    parts = PooledPartition(scenario.data.partition).given(samples, rng)
    return tuple(map(len, parts))


def _image_bytes(loaded: Loaded, first: Loaded) -> int:
    """Of an image as raw 8-bit pixels, in the data's size, or where they have several in the generator's."""
    dataset = Dataset.of(first.scenario, first.folder)
    size = dataset.info.size
    if size is None:
        size = loaded.scenario.companion_planner().work(loaded.folder, dataset).image_size
    return int(np.prod([dataset.info.channels, size, size]))
