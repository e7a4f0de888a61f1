"""The server's part, wherever it runs. Nothing here knows of actors."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedray.adversary.attackers import Attackers
from fedray.aggregation.accumulators import Accumulator
from fedray.aggregation.directions import mean_cosine
from fedray.aggregation.modes import Mode
from fedray.aggregation.rule import Rule
from fedray.aggregation.rules import rule
from fedray.executors import Job, TrainReport, attribute_error
from fedray.executors.companion import COMPANION_KEPT
from fedray.executors.global_step import HOOKS, GlobalStep, as_tensors, hooks_state, merged, moving_average
from fedray.executors.model import EMA, MASTER, as_sent, make_deterministic, master
from fedray.executors.root_update import RootUpdate
from fedray.executors.spill import StateArrays
from fedray.executors.validation import Validation
from fedray.randomness import SERVER, key
from fedray.runs.folder import saved_files
from fedray.runs.state import Saved
from fedray.scenario.kinds import implementation
from fedray.scenario.mode import AnyMode
from fedray.scenario.scenario import Scenario
from fedray.schedule import Tier
from fedray.transport.buffer import Layout, load_arrays, save_arrays, sha256
from fedray.transport.compression import hook_chain
from fedray.transport.hooks import HookContext

SERVER_FILE = "server.safetensors"
VERSION = "buffer"  # in the file of another model that clients begin with


class ServerWork:
    """The server's part. It keeps nothing between calls that it could not build again, so it may be
    restarted."""

    def __init__(self, job: Job) -> None:
        self.job = job
        make_deterministic(job.scenario.runtime.threads)

    def aggregate(
        self,
        layout: Layout,
        buffer: np.ndarray,
        state: StateArrays,
        round_number: int,
        clients: int,
        partials: Sequence[Accumulator],
        secure: Any = None,
        tier: Tier | None = None,
        receive_snr: float | None = None,
    ) -> tuple[np.ndarray, StateArrays]:
        """The next global buffer and server state; both as they were where nobody sent anything, or fewer
        than the rule needs.

        Args:
            layout: of what travels.
            buffer: what the clients of the round had from the server.
            state: the server's.
            round_number: from 1.
            clients: how many clients there are that can train at all.
            partials: what each host has accumulated.
            secure: the round's secure aggregation, whose masks come off here.
            tier: whose step it is; None: clients are in no tiers.
            receive_snr: of updates that add up on the air, which get noise here; None: they do not.
        """
        with attribute_error(round_number, "aggregating", None):
            accumulated = merged(partials) if partials else self._nothing(layout)
            if secure is not None and partials:
                accumulated = accumulated.unmasked(secure)  # type: ignore[attr-defined]
                if accumulated is None:
                    return buffer, state
            if partials and receive_snr is not None:
                at = self.job.scenario.seed, round_number
                accumulated = accumulated.received(receive_snr, *at)  # type: ignore[attr-defined]
            return self._aggregate(layout, buffer, state, round_number, clients, accumulated, tier)

    def _nothing(self, layout: Layout) -> Accumulator:
        """What nobody has accumulated."""
        return rule(self.job.scenario.aggregation, layout).empty(1)

    def _aggregate(
        self,
        layout: Layout,
        buffer: np.ndarray,
        state: StateArrays,
        round_number: int,
        clients: int,
        accumulated: Accumulator,
        tier: Tier | None,
    ) -> tuple[np.ndarray, StateArrays]:
        """Arguments as of `aggregate`, with what all hosts have accumulated."""
        scenario = self.job.scenario
        too_few = not accumulated.weight or accumulated.added < scenario.aggregation.least_updates
        if too_few and not scenario.steps_without_updates:
            return buffer, state
        added = accumulated.added
        if scenario.aggregation.clean_samples:
            accumulated.add(self._root_update.of(round_number, buffer, state), 1, SERVER)
        context = self._context(round_number, state, [accumulated])
        own = rule(scenario.aggregation, layout)
        accumulated = Attackers(scenario).colluded(own, accumulated, round_number, context)
        old = master(layout, buffer, state)
        step = self._step(own, old, state, added / clients, context, accumulated)
        hooks = step.hooks
        new, kept = step.run()
        if scenario.topology.asynchronous is not None:
            new, kept_by_mode = mode_step(scenario.topology.asynchronous, old, new, state, tier)
            kept |= kept_by_mode
        kept |= {name: state[name] for name in COMPANION_KEPT if name in state}
        kept |= {HOOKS + name: np.array(value) for name, value in hooks.kept_by_server(context).items()}
        if decay := getattr(scenario.model, "ema_decay", None):
            n = layout.numel
            before = state.get(EMA, old[:n].numpy())
            kept[EMA] = moving_average(decay, round_number, before, new[:n].numpy())
        sent, kept_state = as_sent(layout, new)
        return sent, kept | kept_state

    def _context(self, round_number: int, state: StateArrays, partials: Sequence[Accumulator]) -> HookContext:
        """What the server's hooks know of a round.

        Args:
            round_number: from 1.
            state: the server's.
            partials: what each host has accumulated.
        """
        counts = Counter[str]()
        for partial in partials:
            counts.update(partial.counts)
        return HookContext(
            self.job.scenario.seed,
            round_number,
            SERVER,
            server=hooks_state(state),
            counts=dict(counts),
            added=sum(partial.added for partial in partials),
        )

    def _step(
        self,
        own: Rule,
        old: torch.Tensor,
        state: StateArrays,
        participation: float,
        context: HookContext,
        accumulated: Accumulator,
    ) -> GlobalStep:
        """The server's step of these updates.

        Args:
            own: the scenario's rule.
            old: the global numbers [received] fp32.
            state: the server's.
            participation: the share of all clients that can train whose updates were added.
            context: of the round.
            accumulated: the updates.
        """
        return GlobalStep(
            rule=own,
            hooks=hook_chain(self.job.scenario),
            accumulated=accumulated,
            old=old,
            state=as_tensors(state, without=(EMA, MASTER, *COMPANION_KEPT)),
            participation=participation,
            seed=key(context.seed, context.round_number, SERVER, "aggregate"),
            context=context,
        )

    def contributions(
        self,
        layout: Layout,
        buffer: np.ndarray,
        state: StateArrays,
        round_number: int,
        clients: int,
        partials: Sequence[Accumulator],
    ) -> dict[int, float] | None:
        """What the update of each client adds to the next global model on held-out images, by client; None
        where nobody is paid for that, or nothing arrived. Nothing of it is changed.

        Args:
            layout: of what travels.
            buffer: what the clients of the round had from the server.
            state: the server's.
            round_number: from 1.
            clients: how many clients there are that can train at all.
            partials: what each host has gathered.
        """
        scenario = self.job.scenario
        if not scenario.validation_images or not partials:
            return None
        own = rule(scenario.aggregation, layout)
        old = master(layout, buffer, state)
        context = self._context(round_number, state, partials)

        def made_of(updates: Mapping[int, tuple[int, np.ndarray]]) -> torch.Tensor:
            some = own.empty(partials[0].round_weight)
            for client, (weight, update) in updates.items():
                some.add(torch.from_numpy(update), weight, client)
            if not some.weight or some.added < scenario.aggregation.least_updates:
                return old
            return self._step(own, old, state, some.added / clients, context, some).run()[0]

        with attribute_error(round_number, "validating updates", None):
            updates = Attackers(scenario).arrived(partials, round_number, context)
            return self._validation.contributions(updates, made_of)

    @cached_property
    def _validation(self) -> Validation:
        return Validation(self.job)

    def checkpoint(
        self, layout: Layout, buffer: np.ndarray, state: StateArrays, folder: Path, before: Path | None,
        unchanged: Sequence[int], changed: Sequence[int], held: Sequence[str],
        *arrays: Any,
    ) -> Saved:  # fmt: skip
        """Writes the model's weights, what the server has beside them, and the states of the clients that
        have changed since the checkpoint `before`; the others' are linked to its files.

        Args:
            layout: of what travels.
            buffer: the global one.
            state: the server's.
            folder: where it is written.
            before: the checkpoint before, if there is one.
            unchanged: clients whose state is as it was there.
            changed: the other clients that have one.
            held: the files of the other models that clients begin with.
            arrays: the states of the changed, then the buffers of those models.
        """
        states = arrays[: len(changed)]
        layout.save(buffer[: layout.nbytes], folder / "weights.safetensors")
        files: dict[str, str] = {}
        if len(buffer) > layout.nbytes or state:
            kept_state = {f"state.{name}": value for name, value in state.items()} | {
                "vectors": buffer[layout.nbytes :]
            }
            files[SERVER_FILE] = save_arrays(kept_state, folder / SERVER_FILE)
        for client, value in zip(changed, states, strict=True):
            files[client_file(client)] = save_arrays(value, folder / client_file(client))
        for name, old in zip(held, arrays[len(changed) :], strict=True):
            if name.startswith("version-") and before is not None and (before / name).exists():
                os.link(before / name, folder / name)
                files[name] = saved_files(before)[name]
            else:
                files[name] = save_arrays({VERSION: old}, folder / name)
        if unchanged:
            assert before is not None
            saved = saved_files(before)
            for client in unchanged:
                os.link(before / client_file(client), folder / client_file(client))
                files[client_file(client)] = saved[client_file(client)]
        return Saved(weights_sha256(self.job.scenario, layout, buffer), files)

    @cached_property
    def _root_update(self) -> RootUpdate:
        return RootUpdate(self.job)

    def restore(self, layout: Layout, folder: Path, saved: Saved) -> tuple[np.ndarray, StateArrays]:
        """The global buffer and the server's state of a checkpoint.

        Raises:
            ValueError: for any file that is not what it was, a client's too.
        """
        buffer = layout.load(folder / "weights.safetensors")
        state = {}
        for name, expected in saved.files.items():
            arrays = load_arrays(folder / name, expected)
            if name == SERVER_FILE:
                buffer = np.concatenate([buffer, arrays.pop("vectors")])
                state = {k.removeprefix("state."): v for k, v in arrays.items()}
        expected = saved.weights_sha256[:12]
        if (got := weights_sha256(self.job.scenario, layout, buffer)) != saved.weights_sha256:
            file = folder / "weights.safetensors"
            raise ValueError(f"{file} has sha256 {got[:12]}..., expected {expected}...")
        return buffer, state

    def client_state(self, folder: Path, name: str, expected: str) -> StateArrays:
        return load_arrays(folder / name, expected)

    def version(self, folder: Path, name: str, expected: str) -> np.ndarray:
        """Another buffer that clients begin with, of a checkpoint."""
        return load_arrays(folder / name, expected)[VERSION]


def mode_step(
    section: AnyMode, old: torch.Tensor, new: torch.Tensor, state: StateArrays, tier: Tier | None
) -> tuple[torch.Tensor, StateArrays]:
    """What a mode makes of the server's step, and what the server keeps for it.

    Args:
        section: the scenario's `topology.mode`.
        old: the global numbers before the step [received] fp32.
        new: after it.
        state: the server's.
        tier: whose step it is; None: clients are in no tiers.
    """
    mode: Mode = implementation(section)(section)
    own = [name for name in state if mode.keeps and name.startswith(mode.keeps)]
    mine = {name: torch.from_numpy(state[name]) for name in own}
    result, kept = mode.server_step(old, new, mine, tier)
    return result, {name: tensor.numpy() for name, tensor in kept.items()}


def client_file(client: int) -> str:
    return f"client-{client}.safetensors"


def weights_sha256(scenario: Scenario, layout: Layout, buffer: np.ndarray) -> str:
    """Of all that the global model is made of: what was folded into the base too, control variates not."""
    own = rule(scenario.aggregation, layout)
    whole = own.updates_base_weights or own.models > 1
    return sha256(buffer if whole else buffer[: layout.nbytes])


def reported(
    report: TrainReport | None,
    round_number: int,
    partials: Sequence[Accumulator],
    contributions: Mapping[int, float] | None = None,
) -> TrainReport | None:
    """The server's report of a round, with how alike the updates are and what each adds, where that is
    measured; None where it has nothing to say.

    Args:
        report: of the companion's model, where it trained one.
        round_number: from 1.
        partials: what each host has accumulated.
        contributions: what the updates add, by client.
    """
    cosine = mean_cosine(partials)
    if cosine is None and contributions is None:
        return report
    report = report or TrainReport(round_number, SERVER, 0, 0, 0.0)
    measured = {} if cosine is None else {"update_cosine": cosine}
    return replace(report, metrics={**report.metrics, **measured}, contributions=contributions)
