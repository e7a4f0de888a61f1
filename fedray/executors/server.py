"""The server's part, and the evaluator's, wherever they run. Nothing here knows of actors."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from fedray.aggregation.exact_sum import ExactSum, chunks
from fedray.aggregation.rules import rule
from fedray.executors import Job
from fedray.executors.model import EMA, MASTER, Model, as_sent, make_deterministic, master
from fedray.executors.spill import Kept
from fedray.randomness import SERVER, key
from fedray.runs.folder import Saved, saved_files
from fedray.transport.buffer import Layout, load_arrays, save_arrays, sha256

SERVER_FILE = "server.safetensors"
OWN = "augmented"  # the augmented model's last weights (see augment.py), in the server's state


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
        state: Kept,
        round: int,
        clients: int,
        partials: Sequence[ExactSum],
    ) -> tuple[np.ndarray, Kept]:
        """The next global buffer and server state, from the hosts' sums; both as they were where nobody sent
        anything.

        Args:
            buffer: what the clients of the round had from the server.
            clients: how many clients there are that can train at all.
        """
        total, combined = partials[0], rule(self.job.scenario.aggregation, layout)
        for other in partials[1:]:
            total.merge(other)
        if not total.weight:
            return buffer, state
        share, seed = total.added / clients, key(self.job.scenario.seed, round, SERVER, "aggregate")
        rows = len(total.total) // layout.numel if combined.element_wise else 1
        old, sums = master(layout, buffer, state).view(rows, -1), total.total.view(rows, -1)
        new, new_state = old.clone(), dict[str, np.ndarray]()
        theirs = {
            name: torch.from_numpy(np.array(value))
            for name, value in state.items()
            if name not in (EMA, OWN, MASTER)
        }
        # Number by number, so that memory stays small, where the rule allows it.
        for c in chunks(layout.numel) if combined.element_wise else [slice(0, None)]:
            before, mean = old[:, c].double(), sums[:, c] / total.weight
            part = {name: value[..., c] if value.ndim else value for name, value in theirs.items()}
            if combined.element_wise:
                stepped, part = combined.step(before, mean, part, share, seed)
            else:
                stepped, part = combined.step(before[0], mean[0], part, share, seed)
            new[:, c] = stepped
            # what only travels is averaged
            if (rest := max(0, layout.trained - c.start)) < len(mean[0]) and combined.element_wise:
                new[0, c][rest:] = before[0, rest:] + mean[0, rest:]
            for name, value in part.items():
                if value.ndim:
                    new_state.setdefault(name, np.empty(old.shape))[..., c] = value.numpy()
                else:
                    new_state[name] = value.numpy()
        if decay := getattr(self.job.scenario.model, "ema_decay", None):
            rate = min(decay, (1 + round) / (10 + round))
            ours = new[0, : layout.numel].numpy()
            new_state[EMA] = (
                rate * state.get(EMA, old[0, : layout.numel].numpy()) + np.float32(1 - rate) * ours
            )
        sent, kept = as_sent(layout, new.flatten())
        return sent, new_state | kept

    def checkpoint(
        self, layout: Layout, buffer: np.ndarray, state: Kept, folder: Path, before: Path | None,
        unchanged: Sequence[int], changed: Sequence[int], *states: Kept,
    ) -> Saved:  # fmt: skip
        """Writes the model's weights, what the server has beside them, and the states of the clients that
        have changed since the checkpoint `before`; the others' are linked to its files."""
        layout.save(buffer[: layout.nbytes], folder / "weights.safetensors")
        files: dict[str, str] = {}
        if len(buffer) > layout.nbytes or state:
            beside = {f"state.{name}": value for name, value in state.items()} | {
                "vectors": buffer[layout.nbytes :]
            }
            files[SERVER_FILE] = save_arrays(beside, folder / SERVER_FILE)
        for client, value in zip(changed, states, strict=True):
            files[client_file(client)] = save_arrays(value, folder / client_file(client))
        if unchanged:
            assert before is not None
            saved = saved_files(before)
            for client in unchanged:
                os.link(before / client_file(client), folder / client_file(client))
                files[client_file(client)] = saved[client_file(client)]
        return Saved(self._sha256(layout, buffer), files)

    def _sha256(self, layout: Layout, buffer: np.ndarray) -> str:
        """Of all that the global model is made of: what was folded into the base too, control variates
        not."""
        return sha256(
            buffer if rule(self.job.scenario.aggregation, layout).folds else buffer[: layout.nbytes]
        )

    def restore(self, layout: Layout, folder: Path, saved: Saved) -> tuple[np.ndarray, Kept]:
        """The global buffer and the server's state of a checkpoint.

        Raises:
            ValueError: for any file that is not what it was, a client's too.
        """
        buffer, state = layout.load(folder / "weights.safetensors"), {}
        for name, expected in saved.files.items():
            arrays = load_arrays(folder / name, expected)
            if name == SERVER_FILE:
                buffer = np.concatenate([buffer, arrays.pop("vectors")])
                state = {k.removeprefix("state."): v for k, v in arrays.items()}
        if (got := self._sha256(layout, buffer)) != saved.weights_sha256:
            raise ValueError(
                f"{folder / 'weights.safetensors'} has sha256 {got[:12]}..., expected"
                f" {saved.weights_sha256[:12]}..."
            )
        return buffer, state

    def client_state(self, folder: Path, name: str, expected: str) -> Kept:
        return load_arrays(folder / name, expected)


def client_file(client: int) -> str:
    return f"client-{client}.safetensors"


class EvaluatorWork:
    """Looks at global buffers with a model of its own, off the rounds' path."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.device = job, device

    def evaluate(self, buffer: np.ndarray, state: Kept, grid: Path) -> dict[str, float]:
        from fedray.evaluation.evaluate import evaluate

        scenario = self.job.scenario
        self._model.receive(buffer, state)
        found = (
            evaluate(scenario, self.job.folder, self._model.learner, grid) if scenario.evaluates_model else {}
        )
        if scenario.evaluation.leakage is not None:
            from fedray.executors.split.leaks import measure

            found |= measure(
                self.job, self._model.learner, grid.with_name(grid.name.replace("round", "attack"))
            )
        return found

    def export(self, buffer: np.ndarray, state: Kept, folder: Path) -> None:
        self._model.export(buffer, state, folder)

    @cached_property
    def _model(self) -> Model:
        return Model(self.job, self.device)
