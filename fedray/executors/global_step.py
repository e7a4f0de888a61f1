"""The server's step: the next global numbers, of what the hosts have accumulated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedray.aggregation.accumulators import Accumulator, chunks
from fedray.aggregation.rule import Rule, State
from fedray.executors.spill import StateArrays
from fedray.transport.hooks import HookChain, HookContext


def merged(partials: Sequence[Accumulator]) -> Accumulator:
    """What all hosts have accumulated."""
    first, *others = partials
    for other in others:
        first.merge(other)
    return first


@dataclass
class GlobalStep:
    """One step of the server, number by number where the rule allows it, so that memory stays small.

    Args:
        rule: combines the updates.
        hooks: change what it makes of them.
        accumulated: the updates.
        old: the global numbers [received] fp32.
        state: what the rule kept.
        participation: the share of all clients that can train whose updates were added.
        seed: the round's.
        context: of the round.
    """

    rule: Rule
    hooks: HookChain
    accumulated: Accumulator
    old: Tensor
    state: State
    participation: float
    seed: int
    context: HookContext

    def run(self) -> tuple[Tensor, StateArrays]:
        """The new global numbers [received] fp32, and what the rule keeps."""
        if not self.rule.element_wise:
            new, state = self._stepped(slice(0, None), self.old[None], self.state)
            return new[0].float(), {name: value.numpy() for name, value in state.items()}
        numel = self.rule.layout.numel
        old = self.old.view(-1, numel)
        new = old.clone()
        kept: StateArrays = {}
        for part in chunks(numel):
            state = {name: value[..., part] if value.ndim else value for name, value in self.state.items()}
            new[:, part], state = self._stepped(part, old[:, part], state)
            for name, value in state.items():
                if value.ndim:
                    kept.setdefault(name, np.empty(old.shape))[..., part] = value.numpy()
                else:
                    kept[name] = value.numpy()
        return new.flatten(), kept

    def _stepped(self, part: slice, old: Tensor, state: State) -> tuple[Tensor, State]:
        """The step of some numbers: from `old` [rows, numbers] fp32 to [rows, numbers] float64."""
        before = old.double()
        combined, kept = self.rule.combine_with_state(self.accumulated.result(len(old), part), state)
        combined = self.hooks.on_combined(combined, part, self.context)
        if not self.rule.element_wise:
            new, state = self.rule.step(before[0], combined[0], state, self.participation, self.seed)
            return new[None], kept | state
        new, state = self.rule.step(before, combined, state, self.participation, self.seed)
        rest = max(0, self.rule.layout.trained - part.start)
        if rest < combined.shape[1]:  # what only travels is averaged
            new = new.clone()
            new[0, rest:] = before[0, rest:] + combined[0, rest:]
        return new, kept | state


HOOKS = "hooks."  # begins the names of what hooks keep, in the server's state


def hooks_state(state: StateArrays) -> dict[str, float]:
    """What hooks keep at the server, of its whole state."""
    return {k.removeprefix(HOOKS): float(v) for k, v in state.items() if k.startswith(HOOKS)}


def moving_average(decay: float, round_number: int, before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The moving average of a global model over rounds [numel] fp32; its decay rises to the one given, as
    (1 + t) / (10 + t).

    Args:
        decay: at most.
        round_number: t, from 1.
        before: the average so far [numel].
        now: the new global model [numel].
    """
    rate = min(decay, (1 + round_number) / (10 + round_number))
    return rate * before + np.float32(1 - rate) * now


def as_tensors(state: StateArrays, without: Sequence[str]) -> State:
    """A rule's state in memory of its own, without what these names and the hooks hold."""
    own = {name: v for name, v in state.items() if name not in without and not name.startswith(HOOKS)}
    return {name: torch.from_numpy(np.array(v)) for name, v in own.items()}
