"""Adds up updates that were kept, as the run's hosts and its server did: the same code, and the same bits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from fedray.aggregation.accumulators import Accumulator
from fedray.data import Samples
from fedray.executors import Job
from fedray.executors.client_worker import ClientWorker
from fedray.executors.model import master
from fedray.executors.server import ServerWork
from fedray.ledger.records import Leaf, digest
from fedray.scenario.scenario import Scenario


class Replay:
    """A run's global model, made of kept updates. It needs the base model, and no data.

    Args:
        scenario: the run's.
        folder: where its relative paths start.
    """

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        job = Job(scenario, folder)
        self.scenario = scenario
        nobody: tuple[Samples, Mapping[int, np.ndarray]] = (None, {})  # type: ignore[assignment]
        self.worker = ClientWorker(job, torch.device("cpu"), own=nobody)
        self.server = ServerWork(job)
        self.buffer, self.layout, self.state = self.worker.initial()

    @property
    def sha256(self) -> str:
        """Of the global buffer."""
        return digest(self.buffer.data)

    def add_round(
        self, number: int, leaves: Sequence[Leaf], updates: Mapping[int, np.ndarray], clients: int
    ) -> None:
        """One round.

        Args:
            number: from 1.
            leaves: of the round's clients, in their order.
            updates: what each one sent, uint8 or fp32, by client.
            clients: that can train at all.
        """
        weight = sum(leaf.weight for leaf in leaves)
        accumulator = self.worker.rule.empty(weight)
        state = self.state if self.scenario.adds_to_master else {}
        ours = master(self.layout, self.buffer, state)
        for leaf in leaves:
            if leaf.outcome == "done" and leaf.sends == "update":
                change = torch.from_numpy(updates[leaf.client]).view(torch.float32)
                contribution = self.worker.rule.contribution(ours, change)
                accumulator.add(contribution, leaf.weight, leaf.client)
        for chain in self._chains(leaves):
            self._add_chain(accumulator, number, chain, updates)
        self.buffer, self.state = self.server.aggregate(
            self.layout, self.buffer, self.state, number, clients, [accumulator]
        )

    def _chains(self, leaves: Sequence[Leaf]) -> list[list[Leaf]]:
        """The clients of each relay that trained, in their order: one begins with the global buffer, and each
        starts from what the one before handed on."""
        chains: list[list[Leaf]] = []
        end: str | None = None
        for leaf in leaves:
            if leaf.outcome != "done" or leaf.sends != "model":
                continue
            if leaf.base != end:
                chains.append([])
            chains[-1].append(leaf)
            end = leaf.update
        return chains

    def _add_chain(
        self,
        accumulator: Accumulator,
        number: int,
        chain: Sequence[Leaf],
        updates: Mapping[int, np.ndarray],
    ) -> None:
        """What a relay's chain has made of the global model.

        Args:
            accumulator: of the round.
            number: of the round.
            chain: its clients that trained.
            updates: what each one handed on, uint8.
        """
        weight = sum(leaf.weight for leaf in chain)
        last = chain[-1].client
        self.worker.add_model(accumulator, self.buffer, self.state, updates[last], weight, number, last)
