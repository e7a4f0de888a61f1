"""What is known of GenFL's rounds before they are run: who paints how much, of which labels, and what it
costs. No torch here before something is counted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedray.augmentation import labels
from fedray.augmentation.amount import Amount, AmountContext, RoundCosts
from fedray.augmentation.extra_samples import OwnImages, SharedLabels
from fedray.augmentation.topology import Closing, ImageCounts, at_clients, at_server, at_server_broadcast
from fedray.augmentation.trial import Trial, candidates, scorers, with_trial
from fedray.data import Dataset
from fedray.data.places import located
from fedray.executors.companion import CompanionRound
from fedray.learners.bases import locate
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.companion import CompanionWork
from fedray.randomness import SERVER
from fedray.scenario.base import Refused
from fedray.scenario.kinds import implementation
from fedray.schedule import Schedule
from fedray.steps import SERVER_NODE, Score, client_node


class AugmentationPlanner:
    """Plans the rounds of a scenario with an `augmentation`."""

    def __init__(self, scenario: Any) -> None:
        self.scenario = scenario
        self.section = scenario.augmentation
        self.rounds = scenario.training.rounds

    def schedule(
        self,
        start: RoundStart,
        clients: list[int],
        shared: Any,
        pictures: Mapping[str, int],
        radio: Radio,
        work: Work | None,
    ) -> Schedule:
        """A round.

        Args:
            start: which round, and when it begins.
            clients: that take part.
            shared: what the server knows of its clients.
            pictures: how many each node has made or been sent before.
            radio: the network.
            work: what steps take; None: not known, and amounts that depend on it are left out.
        """
        section = self.section
        round_number = start.round_number
        if section.prompts.trial_round and round_number <= section.prompts.trial_round:
            return self._before_painting(round_number, clients, shared)
        costs = None if work is None else RoundCosts(work, radio, start)
        painting_round = section.prompts.painting_round(round_number)
        context = AmountContext(
            labels=shared.counts.shape[1],
            painting_round=painting_round,
            had=pictures.get(SERVER_NODE, 0),
            clients=clients,
            samples=sum(shared.samples),
            costs=costs,
            held=shared.samples,
            pictures={k: pictures.get(client_node(k), 0) for k in clients},
        )
        if section.at == "client":
            return at_clients(round_number, clients, self._own_counts(context), self._closing)
        total = self.amount.total(context)
        here = ImageCounts(max(0, total - context.had), total)
        if section.at == "server":
            kappas = section.weighting.kappas(round_number, self.rounds) or (1, 1)
            images = here if section.weighting.paints else ImageCounts(0, 0)
            trains = kappas[1] != 0 and images.total > 0
            evaluated = section.weighting.evaluated_models(round_number) * section.weighting.held_out_images
            return at_server(
                round_number,
                clients if kappas[0] else [],
                images,
                trains,
                self._closing,
                evaluated if trains else 0,
            )
        each = self.amount.each(context) or dict.fromkeys(clients, total)
        given = {k: ImageCounts(each[k] - n, each[k]) for k, n in context.pictures.items()}
        return at_server_broadcast(round_number, clients, here.new, given, self._closing)

    def _before_painting(self, round_number: int, clients: list[int], shared: Any) -> Schedule:
        """A round up to that in which clients try candidate prompts."""
        prompts = self.section.prompts
        nothing = ImageCounts(0, 0)
        schedule = at_server(round_number, clients, nothing, False, self._closing)
        if round_number < prompts.trial_round or not clients:
            return schedule
        return with_trial(schedule, len(candidates(self.section, shared.label_names)), prompts.images)

    def _own_counts(self, context: AmountContext) -> dict[int, ImageCounts]:
        """What each client of a round paints for itself, by how much it has: what was lost is painted
        again."""
        per_round = labels.painted(self.section, context.labels, 1)
        each = self.amount.each(context)
        counts: dict[int, ImageCounts] = {}
        for client, had in context.pictures.items():
            own = replace(context, had=had, painting_round=-(-had // per_round) + 1)
            total = self.amount.total(own) if each is None else each[client]
            counts[client] = ImageCounts(total - had, total)
        return counts

    @property
    def _closing(self) -> Closing:
        population = self.scenario.population
        over_select = population.over_select > 0
        return Closing(
            self.scenario.network.deadline_s, population.clients_per_round if over_select else None
        )

    @cached_property
    def amount(self) -> Amount:
        section = self.section.amount
        amount: Amount = implementation(section)(section, self.section)
        return amount

    def companion_round(self, schedule: Schedule, shared: Any) -> CompanionRound:
        """What the server, or each client, paints and trains on in a round: labels of pictures; and what
        clients score."""
        if any(isinstance(step, Score) for step in schedule):
            tried = candidates(self.section, shared.label_names)
            images = self.section.prompts.images
            trial = Trial(tried, images, shared.counts, scorers(schedule))
            return CompanionRound(prepare=trial, choose=trial)
        counts = shared.counts
        if not schedule.pictures:
            return CompanionRound()
        if self.section.at == "client":
            own = {c: labels.order(self.section, counts[c])[:n] for c, n in schedule.pictures.items()}
            return CompanionRound(OwnImages(own))
        here = labels.order(self.section, counts.sum(0))[: max(schedule.pictures.values())]
        if SERVER in schedule.pictures:
            return CompanionRound(train=here)
        return CompanionRound(prepare=SharedLabels(here, schedule.pictures))

    def audited(self, pictures: Mapping[str, int], shared: Any) -> np.ndarray:
        """The labels of the pictures at the server that the last round's clients' data are judged beside."""
        n = pictures.get(SERVER_NODE, 0)
        return labels.order(self.section, shared.counts.sum(0))[:n]

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


def _judge(path: str, folder: Path, key: str) -> None:
    if not located(path, folder, key).is_file():
        raise Refused(key, repr(path), "a safetensors file of a judge")
