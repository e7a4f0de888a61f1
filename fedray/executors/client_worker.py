"""Runs the local updates of many clients, and accumulates what they send. Nothing here knows of actors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from fedray.aggregation.accumulators import Accumulator
from fedray.aggregation.by_node import ByNode
from fedray.aggregation.directions import add_direction
from fedray.aggregation.modes import Mode
from fedray.executors import TrainReport, attribute_error
from fedray.executors.client_tests import (
    ClientStates,
    GlobalModel,
    HoldoutTests,
    OwnModelTests,
    TestRow,
    rows_of,
)
from fedray.executors.gang_training import GangTraining
from fedray.executors.local_training import LocalUpdate, summable
from fedray.executors.model import master
from fedray.executors.relay_worker import RelayWorker, arrays
from fedray.executors.round_samples import RoundSamples
from fedray.executors.spill import StateArrays
from fedray.executors.versions import Aged
from fedray.planning.gangs import gangs
from fedray.scenario.kinds import implementation
from fedray.transport.buffer import Layout
from fedray.transport.hooks import HookChain, HookContext

if TYPE_CHECKING:
    from fedray.secure.round import SecureRound

T = TypeVar("T")


class ClientWorker(RelayWorker):
    """Any client's part in a parallel round or a relay."""

    _accumulator: Accumulator | None = None  # of the round before, whose memory is used again

    def initial(self) -> tuple[np.ndarray, Layout, StateArrays]:
        """The buffer before the first round, its layout and the server's state, the same from every worker:
        the model, and zeros for what the rule adds."""
        sent, kept = self.model.initial()
        return sent, self.model.flat.layout, kept

    def train_apart(
        self, round_number: int, client: int, start: np.ndarray
    ) -> tuple[np.ndarray, TrainReport]:
        """A local update whose weights do not travel: from numbers [numel] fp32 to numbers [numel] fp32, or
        `start` of one that fails."""

        def attempt() -> tuple[np.ndarray, TrainReport]:
            report = self.run(round_number, client, torch.from_numpy(start), {}).report
            return self.model.flat.all.detach().cpu().numpy().copy(), report

        return self._attempt(round_number, client, attempt, start)

    def train_all(
        self,
        base: np.ndarray,
        server: StateArrays,
        round_weight: int,
        round_number: int,
        clients: Sequence[int],
        states: Sequence[StateArrays | None],
        accumulator: Accumulator | None = None,
        extra_samples: RoundSamples | None = None,
        secure: SecureRound | None = None,
        weights: Mapping[int, int] | None = None,
        aged: Aged | None = None,
        node_of: Mapping[int, int] | None = None,
    ) -> tuple[Accumulator, list[TrainReport], list[StateArrays | None]]:
        """The local updates of clients that all start from `base`, one gang after another. A client that
        fails adds nothing, and keeps the state it had.

        Args:
            base: the global buffer.
            server: its state, where Scenario.shows_server_state asks for it.
            round_weight: of all clients of the round.
            round_number: from 1.
            clients: by number.
            states: what each one kept.
            accumulator: of those that came before, if some did.
            extra_samples: that join each client's own, or which of its own each trains on.
            secure: the round's secure aggregation.
            weights: of the round's clients; None: as the scenario says of their samples.
            aged: how old `base` is; None: clients begin together, with the newest.
            node_of: whose model each client's update is for; None: there is one model.

        Returns:
            The accumulator with all of them, their reports, and their new states.
        """
        ours = master(self.model.flat.layout, base, server)
        if self._signer:
            self._signer.receive(base)
        if accumulator is None:
            accumulator = self._empty(round_weight, secure, node_of)
        state_of = dict(zip(clients, states, strict=True))
        reports: dict[int, TrainReport] = {}
        new_states: dict[int, StateArrays | None] = {}
        for gang in gangs(self.job.scenario, clients, lambda client: len(self.client_indices[client])):
            contexts = {c: self._context(round_number, c, state_of[c], server) for c in gang}
            staleness = 0 if aged is None else aged.staleness
            for client, update in self._updates(base, contexts, extra_samples, staleness).items():
                scored = (
                    update if extra_samples is None else partial(self._scored, client, update, extra_samples)
                )
                weight = None if weights is None else weights[client]
                attempt = partial(
                    self._contribute, accumulator, base, ours, contexts[client], scored, weight, aged
                )
                new_states[client], reports[client] = self._attempt(
                    round_number, client, attempt, state_of[client]
                )
        return accumulator, [reports[c] for c in clients], [new_states[c] for c in clients]

    def test_clients(
        self, tested: GlobalModel, clients: Sequence[int], states: ClientStates
    ) -> list[TestRow]:
        """How models do on clients' own distributions.

        Args:
            tested: the global model, and the round.
            clients: by number.
            states: what they keep.
        """
        if "tests" not in self.resident:
            self.resident["tests"] = list(self._tests())
        return rows_of(self.resident["tests"], tested, clients, states)

    def _tests(self) -> Iterator[OwnModelTests | HoldoutTests]:
        """Those that the scenario asks for."""
        if self.job.scenario.evaluation.clients is not None:
            yield OwnModelTests(self)
        if self.job.scenario.data.holdout is not None:
            choose = partial(self.own_model.chosen, rule=copy(self.rule)) if self.rule.models > 1 else None
            yield HoldoutTests(self.job, self.site, self.model, choose)

    def reduction(
        self, accumulator: Accumulator | None, round_weight: int
    ) -> tuple[Callable[[Tensor], Accumulator], Tensor]:
        """One host's part in an all-reduce: numbers that are added up with the others', and what makes an
        accumulator of the result."""
        own = accumulator or self.attackers.empty(self.rule, round_weight)
        return own.from_numbers, own.as_numbers()

    def export(self, buffer: np.ndarray, state: StateArrays, folder: Path) -> None:
        self.model.export(buffer, state, folder)

    def _masked(self, round_weight: int, secure: SecureRound) -> Accumulator:
        from fedray.aggregation.masked import MaskedSum

        return MaskedSum(self.rule.summed, round_weight, secure)

    def _empty(
        self, round_weight: int, secure: SecureRound | None, node_of: Mapping[int, int] | None
    ) -> Accumulator:
        if secure is not None:
            return self._masked(round_weight, secure)
        if node_of is not None:
            return ByNode(self.rule.summed, round_weight, self.rule.accumulator, node_of)
        if self._accumulator is None:
            self._accumulator = self.attackers.empty(self.rule, round_weight)
        self._accumulator = self._accumulator.emptied(round_weight)
        return self._accumulator

    def _updates(
        self,
        base: np.ndarray,
        contexts: Mapping[int, HookContext],
        extra_samples: RoundSamples | None,
        staleness: int,
    ) -> Mapping[int, Callable[[], LocalUpdate]]:
        """By client, what makes its local update, or raises its failure; the worker's model has its end then.

        Args:
            base: the global buffer.
            contexts: of each client of a gang.
            extra_samples: that join each client's own, or which of its own each trains on.
            staleness: by how many server steps `base` is older than the newest.
        """
        received = self.model.flat.layout.view(base).float()
        first = next(iter(contexts.values()))

        def each(local_update: Callable[..., T], context: HookContext) -> T:
            with attribute_error(context.round_number, "training", context.client):
                return local_update(
                    context.round_number,
                    context.client,
                    received,
                    dict(context.state),
                    extra_samples,
                    staleness,
                )

        if len(contexts) == 1:
            return {first.client: partial(each, self.run, first)}
        turns = {client: partial(each, self.begin, context) for client, context in contexts.items()}
        with attribute_error(first.round_number, "training", first.client):
            return self._gang.run(turns)

    @property
    def _gang(self) -> GangTraining:
        if "gang" not in self.resident:
            self.resident["gang"] = GangTraining(self)
        gang: GangTraining = self.resident["gang"]
        return gang

    def _contribute(
        self,
        accumulator: Accumulator,
        base: np.ndarray,
        ours: Tensor,
        context: HookContext,
        run: Callable[[], LocalUpdate],
        weight: int | None = None,
        aged: Aged | None = None,
    ) -> tuple[StateArrays | None, TrainReport]:
        """One client's local update, added to the accumulator; its new state.

        Args:
            accumulator: of the round.
            base: the global buffer.
            ours: the server's numbers [received] fp32.
            context: of the client.
            run: makes its local update.
            weight: of the client; None: as the scenario says of its samples.
            aged: how old `base` is; None: it is the newest.
        """
        update = run()
        change = self._change(update)
        sender = self.attackers.sender(self.model.hooks, context)
        if not sender.is_empty:
            with summable():
                self.rule.accumulator.refuse(change)
            change = self._arrived(change, ours, context, sender)
            update.state |= context.kept
        scenario = self.job.scenario
        if aged is not None:
            change = self._aged(change, update.received, aged)
        contribution = update.rule.contribution(ours, change)
        if weight is None:
            weight = scenario.weight(context.client, update.report.samples)
        with summable():
            accumulator.add(contribution, weight, context.client)
        if scenario.evaluation.compares_updates(context.round_number):
            trained = self.model.flat.layout.trained
            add_direction(accumulator, change[:trained], scenario.population.clients)
        accumulator.counts.update(context.counts)
        report = self._signer.update(update.report, change) if self._signer else update.report
        return arrays(update.state), report

    def _scored(
        self, client: int, run: Callable[[], LocalUpdate], extra_samples: RoundSamples
    ) -> LocalUpdate:
        """A local update, with what its model then says of samples that are to be scored.

        Args:
            client: whose.
            run: makes its local update; the worker's model has its end then.
            extra_samples: of the round.
        """
        update = run()
        update.report = replace(update.report, scores=extra_samples.scores(client, self))
        return update

    def _aged(self, change: Tensor, received: Tensor, aged: Aged) -> Tensor:
        """What the mode makes of a client's change [sent] from the numbers that it received [numel] fp32."""
        drift = None
        if aged.newest is not None:
            drift = torch.zeros_like(change)
            drift[: len(received)] = received - self.model.flat.layout.view(aged.newest).float()
        section = self.job.scenario.topology.asynchronous
        assert section is not None
        mode: Mode = implementation(section)(section)
        return mode.contribution(change, aged.staleness, drift)

    def _change(self, update: LocalUpdate) -> Tensor:
        """What a client has changed [sent] fp32, in memory that the next one uses again."""
        n = self.model.flat.layout.numel
        torch.sub(self.model.flat.all.detach().cpu(), update.received, out=self._sent[:n])
        if update.extra is not None:
            self._sent[n:] = update.extra
        return self._sent

    @property
    def _sent(self) -> Tensor:
        if "sent" not in self.resident:
            self.resident["sent"] = torch.zeros(self.rule.sent)
        memory: Tensor = self.resident["sent"]
        return memory

    def _arrived(self, change: Tensor, ours: Tensor, context: HookContext, sender: HookChain) -> Tensor:
        """What the server gets of a client's change [sent], through the client's hooks. What a client of a
        part of the numbers does not have is zero in the model that it is taken to send."""
        hooks = self.model.hooks
        part = self.model.tuning.client_part(self.model.flat.layout, context.client)
        if part is None:
            change[:] = hooks.on_server(sender.through(change, context), context)
            return change
        change[part] = hooks.on_server(sender.through(change[part], context), context)
        change[~part] = -ours[: len(change)][~part]
        return change
