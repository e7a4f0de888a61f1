"""What is known of GenFL's rounds before they are run: who paints how much, of which labels, and what it
costs. No torch here before something is counted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedray.augmentation import labels
from fedray.augmentation.extra_samples import OwnImages
from fedray.augmentation.topology import ImageCounts, at_clients, at_server, at_server_broadcast
from fedray.data import Dataset
from fedray.data.places import located
from fedray.executors.companion import CompanionRound
from fedray.learners.bases import locate
from fedray.planning.companion import CompanionWork
from fedray.randomness import SERVER
from fedray.scenario.base import Refused
from fedray.schedule import Schedule


class AugmentationPlanner:
    """Plans the rounds of a scenario with an `augmentation`."""

    def __init__(self, scenario: Any) -> None:
        self.scenario = scenario
        self.section = scenario.augmentation
        self.rounds = scenario.training.rounds

    def schedule(
        self,
        round_number: int,
        clients: list[int],
        shared: Any,
        selected: Callable[[int], Sequence[int]],
    ) -> Schedule:
        """A round. What a client already has follows from the rounds it took part in.

        Args:
            round_number: from 1.
            clients: that take part.
            shared: what the server knows of its clients.
            selected: the clients of any round.
        """
        section = self.section
        names = shared.counts.shape[1]

        def counted(before: int, now: int) -> ImageCounts:
            had = labels.painted(section, names, before)
            have = labels.painted(section, names, now)
            return ImageCounts(have - had, have)

        here = counted(round_number - 1, round_number)
        if section.at == "server":
            kappas = section.weighting.kappas(round_number, self.rounds) or (1, 1)
            images = here if section.weighting.paints else ImageCounts(0, 0)
            evaluated = section.weighting.evaluated_models(round_number) * section.weighting.held_out_images
            return at_server(round_number, clients if kappas[0] else [], images, kappas[1] != 0, evaluated)
        took_part = [(t, set(selected(t)).intersection(clients)) for t in range(1, round_number)]
        if section.at == "server_broadcast":
            last = {k: max((t for t, them in took_part if k in them), default=0) for k in clients}
            given = {k: counted(last[k], round_number) for k in clients}
            return at_server_broadcast(round_number, clients, here.new, given)
        past = {k: sum(k in them for _, them in took_part) for k in clients}
        return at_clients(round_number, clients, {k: counted(past[k], past[k] + 1) for k in clients})

    def companion_round(self, schedule: Schedule, shared: Any) -> CompanionRound:
        """What the server, or each client, paints and trains on in a round: labels of pictures."""
        painted = self._painted(schedule, shared)
        here = painted.pop(SERVER, None)
        if here is not None and SERVER in schedule.pictures:
            return CompanionRound(train=here)
        return CompanionRound(OwnImages(painted) if painted else None, prepare=here)

    def audited(self, schedule: Schedule, shared: Any) -> np.ndarray:
        """The labels of the pictures at the server that the last round's clients' data are judged beside."""
        return self._painted(schedule, shared).get(SERVER, np.zeros(0, int))

    def distances(
        self, shared: Any, painted: np.ndarray, rows: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """How far each client's mix of labels is from the population's, alone and with the pictures it is
        weighed or trained beside.

        Args:
            shared: what the server knows of its clients.
            painted: labels of the pictures at the server.
            rows: the run's metrics, a dictionary a round.
        """
        weights = (row["kappa_2"] for row in reversed(rows) if row.get("kappa_2") is not None)
        return dict(labels.distances(self.section, shared.counts, painted, next(weights, 0.0)))

    def missing_files(self, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
        """What raises Refused where a file is missing, each with its key."""
        key = "augmentation.generator"
        yield key, lambda: locate(self.section.generator, folder, key)
        if self.section.judge is not None:
            judge = "augmentation.judge"
            yield judge, lambda: _judge(self.section.judge, folder, judge)

    def verify(self, folder: Path, dataset: Dataset) -> None:
        """Raises Refused where a label has no prompt, or the judge does not know it."""
        from fedray.augmentation import image_generator, quality
        from fedray.evaluation.judge import open_judge

        image_generator.verify(self.section, dataset.info)
        if self.section.judge is not None:
            quality.verify(open_judge(self.section.judge, folder, "augmentation.judge"), dataset.info)

    def work(self, folder: Path, dataset: Dataset) -> CompanionWork:
        """What a picture takes, counted on the meta device."""
        from fedray.augmentation import image_generator

        flops, size = image_generator.counted(self.section, folder)
        return CompanionWork(flops, size, dataset.info.channels * size**2)

    def notes(self, work: CompanionWork, dataset: Dataset) -> Iterator[str]:
        """What a person should know before it trains."""
        size = self.scenario.model.resolution or dataset.info.size
        if work.image_size and size != work.image_size:
            pixels = f"{work.image_size} pixels a side"
            yield f"generated pictures of {pixels} are resized to the classifier's {size}"

    def _painted(self, schedule: Schedule, shared: Any) -> dict[int, np.ndarray]:
        """The labels of all pictures that clients, or the server, train on in a round, by who paints them."""
        section = self.section
        counts = shared.counts
        if not schedule.pictures:
            return {}
        if section.at == "client":
            return {c: labels.order(section, counts[c])[:n] for c, n in schedule.pictures.items()}
        return {SERVER: labels.order(section, counts.sum(0))[: max(schedule.pictures.values())]}


def _judge(path: str, folder: Path, key: str) -> None:
    if not located(path, folder, key).is_file():
        raise Refused(key, repr(path), "a safetensors file of a judge")
