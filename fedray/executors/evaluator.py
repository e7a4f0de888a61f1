"""The evaluator's part, wherever it runs. Nothing here knows of actors."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from fedray.adversary.attack import AttackSuccess
from fedray.adversary.attackers import attacks
from fedray.executors import Job, attribute_error
from fedray.executors.model import Model
from fedray.executors.observers import Observer, observer
from fedray.executors.spill import StateArrays


class EvaluatorWork:
    """Looks at global buffers with a model of its own, off the rounds' path."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job = job
        self.device = device

    def evaluate(self, buffer: np.ndarray, state: StateArrays, grid: Path) -> dict[str, float]:
        from fedray.evaluation.evaluate import evaluate
        from fedray.learners.contexts import EvaluationContext

        scenario = self.job.scenario
        self._model.receive(buffer, state)
        result: dict[str, float] = {}
        if scenario.evaluates_model:
            context = EvaluationContext.of(scenario, self.job.folder, grid, self.job.dataset)
            with attribute_error(None, "evaluating", None, other_than=(OSError,)):  # a disk that is full
                success = [AttackSuccess(attacks(scenario))]
                result = evaluate(self._model.learner, context, success)
        if scenario.evaluation.leakage is not None:
            sheet = grid.with_name(grid.name.replace("round", "attack"))
            result |= self._observer.measure(self._model.learner, buffer, state, sheet)
        return result

    def export(self, buffer: np.ndarray, state: StateArrays, folder: Path) -> None:
        self._model.export(buffer, state, folder)

    @cached_property
    def _observer(self) -> Observer:
        return observer(self.job, self.device)

    @cached_property
    def _model(self) -> Model:
        return Model(self.job, self.device)
