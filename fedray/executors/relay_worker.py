"""A client's place in a relay: it trains what it gets, and hands it on. Nothing here knows of actors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from fedray.aggregation.accumulators import Accumulator
from fedray.executors import DataFailure, TrainReport, attribute_error
from fedray.executors.global_step import hooks_state
from fedray.executors.local_training import LocalTraining, failed_report, summable
from fedray.executors.model import as_sent, master, returned
from fedray.executors.relay_defence import HandedOn, Hop, RelayDefence, relay_defence
from fedray.executors.signing import UpdateSigner, update_signer
from fedray.executors.spill import StateArrays
from fedray.transport.hooks import HookContext

T = TypeVar("T")


class Received(NamedTuple):
    """What a client goes on with of what it was handed."""

    buffer: np.ndarray
    norms: tuple[float, ...] = ()  # of the chain's accepted changes
    rejected: tuple[int, ...] = ()  # whose change it rejects


class RelayWorker(LocalTraining):
    """Any client's part in a relay."""

    def train(
        self, round_number: int, client: int, buffer: np.ndarray, state: StateArrays | None = None
    ) -> tuple[np.ndarray, TrainReport, StateArrays | None]:
        """A client's place in a relay (huang2023, Sec. IV, Step 2): the buffer that it hands on, its report,
        and its new state. A client that fails hands on what it was given.

        Args:
            round_number: from 1.
            client: by number.
            buffer: that the client got.
            state: what it kept of its last local update.
        """
        (new, kept), report = self._attempt(
            round_number,
            client,
            lambda: self._trained(round_number, client, buffer, state),
            (buffer, state),
        )
        return new, report, kept

    def validate_and_train(
        self,
        round_number: int,
        client: int,
        handed: HandedOn | np.ndarray,
        state: StateArrays | None = None,
    ) -> tuple[HandedOn, TrainReport, StateArrays | None]:
        """The same, where the relay has a defence: a client that fails hands on what it was handed, which
        nobody has judged then.

        Args:
            round_number: from 1.
            client: by number.
            handed: what the client got; the first one of a chain the global buffer.
            state: what it kept of its last local update.
        """
        got = handed if isinstance(handed, HandedOn) else HandedOn(handed, handed)

        def attempt() -> tuple[tuple[HandedOn, StateArrays | None], TrainReport]:
            start = self._receive(round_number, client, got, state)
            (new, kept), report = self._trained(round_number, client, start.buffer, state)
            report = replace(report, rejected=start.rejected)
            return (HandedOn(new, start.buffer, client, start.norms), kept), report

        (on, kept), report = self._attempt(round_number, client, attempt, (got, state))
        return on, report, kept

    def validate(
        self,
        round_number: int,
        client: int | None,
        handed: HandedOn,
        report: TrainReport,
        state: StateArrays | None = None,
    ) -> tuple[np.ndarray, TrainReport]:
        """The end of a relay that has a defence: the buffer that goes up, and the last client's report with
        what is said of its model. A model is not accepted that its validator cannot try.

        Args:
            round_number: from 1.
            client: that validates; None: nobody is reached who could.
            handed: what it got.
            report: of the last client.
            state: what the validator keeps.
        """
        if client is None:
            return handed.model, report
        try:
            with attribute_error(round_number, "validating a model", client):
                end = self._receive(round_number, client, handed, state)
        except DataFailure:
            end = Received(handed.accepted, rejected=() if handed.sender is None else (handed.sender,))
        return end.buffer, replace(report, rejected=(*report.rejected, *end.rejected))

    def _trained(
        self, round_number: int, client: int, buffer: np.ndarray, state: StateArrays | None
    ) -> tuple[tuple[np.ndarray, StateArrays | None], TrainReport]:
        """The buffer after a local update that began with this one, the client's new state, and its report.

        Args:
            round_number: from 1.
            client: by number.
            buffer: that it begins with.
            state: what it kept of its last local update.
        """
        flat = self.model.flat
        if self._signer:
            self._signer.receive(buffer)
        received = flat.layout.view(buffer).float()
        context = self._context(round_number, client, state)
        update = self.run(round_number, client, received, dict(context.state))
        sender = self.attackers.sender(self.model.hooks, context)
        if sender.changes_updates:
            change = flat.all.detach().cpu() - received
            flat.all.copy_(received + sender.on_client(change, context))
            update.state |= context.kept
        new = flat.send()
        with summable():
            self.rule.accumulator.refuse(flat.layout.view(new), flat.layout.view(buffer))
        report = self._signer.model_sent(update.report, new) if self._signer else update.report
        return (new, arrays(update.state)), report

    def _receive(
        self, round_number: int, client: int, handed: HandedOn, state: StateArrays | None
    ) -> Received:
        """What a client goes on with, as the relay's defence says of what it was handed.

        Args:
            round_number: from 1.
            client: by number.
            handed: what it got.
            state: what it kept of its last local update.
        """
        if self._defence is None or handed.sender is None:
            return Received(handed.model, handed.norms)
        layout = self.model.flat.layout
        accepted = layout.view(handed.accepted).float()
        hop = Hop(
            accepted=accepted,
            change=layout.view(handed.model).float() - accepted,
            norms=handed.norms,
            measure=lambda numbers: self.own_model.losses(round_number, client, numbers, tensors(state)),
        )
        change = self._defence.receive(hop)
        if change is None:
            return Received(handed.accepted, handed.norms, (handed.sender,))
        norms = (*handed.norms, float(change.norm()))
        if change is hop.change:
            return Received(handed.model, norms)
        return Received(as_sent(layout, accepted + change)[0], norms)

    @cached_property
    def _defence(self) -> RelayDefence | None:
        return relay_defence(self.job.scenario.topology.relay_defence)

    def add(
        self,
        base: np.ndarray,
        state: StateArrays,
        round_weight: int,
        end: np.ndarray,
        reports: Sequence[TrainReport],
    ) -> Accumulator:
        """The update of a relay's chain.

        Args:
            base: the buffer that the chain began with.
            state: the server's.
            round_weight: of all clients of the round.
            end: the buffer that the chain ended with, a model and no difference: one chain's is the next
                global model.
            reports: of the chain's clients; the update weighs what those that trained hold.
        """
        accumulator = self.attackers.empty(self.rule, round_weight)
        trained = [report for report in reports if report.failure is None]
        scenario = self.job.scenario
        weight = scenario.chain_weight({report.client: report.samples for report in trained})
        if trained and weight:
            last = trained[-1]
            self.add_model(accumulator, base, state, end, weight, last.round, last.client)
        return accumulator

    def add_model(
        self,
        accumulator: Accumulator,
        base: np.ndarray,
        state: StateArrays,
        end: np.ndarray,
        weight: int,
        round_number: int,
        last: int,
    ) -> None:
        """Adds what the model at the end of a relay's chain differs by from the global one.

        Args:
            accumulator: of the round.
            base: the buffer that the chain began with.
            state: the server's.
            end: the buffer that the chain ended with.
            weight: of the chain's clients that trained.
            round_number: from 1.
            last: the last client that trained.
        """
        layout = self.model.flat.layout
        ours = master(layout, base, state)
        arrived = returned(layout.view(end), layout.view(base), ours)
        if not self.model.hooks.changes_updates:
            accumulator.add(arrived, weight, last, ours)
            return
        with attribute_error(round_number, "adding its update", last):
            context = self._context(round_number, last, None)
            accumulator.add(self.model.hooks.on_server(arrived - ours, context), weight, last)

    def _attempt(
        self, round_number: int, client: int, attempt: Callable[[], tuple[T, TrainReport]], otherwise: T
    ) -> tuple[T, TrainReport]:
        """A local update; what its data make impossible is reported, and anything else ends the round."""
        try:
            with attribute_error(round_number, "training", client):
                return attempt()
        except DataFailure as e:
            samples = len(self.client_indices[client])
            report = failed_report(round_number, client, samples, e)
            return otherwise, self._signer.failed(report) if self._signer else report

    @cached_property
    def _signer(self) -> UpdateSigner | None:
        """Signs what clients send, where the scenario has a ledger."""
        return update_signer(self.job, self.model)

    def _context(
        self, round_number: int, client: int, state: StateArrays | None, server: StateArrays | None = None
    ) -> HookContext:
        seed = self.job.scenario.seed
        return HookContext(seed, round_number, client, tensors(state), server=hooks_state(server or {}))


def tensors(state: StateArrays | None) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(value)) for name, value in (state or {}).items()}


def arrays(state: dict[str, Tensor]) -> StateArrays | None:
    return {name: value.cpu().numpy() for name, value in state.items()} or None
