"""The evaluator as a Ray actor."""

from pathlib import Path
from typing import Any

from fedray.executors.ray.actors import Actor, this_device


class EvaluatorHost(Actor):
    """An actor that looks at the model while others train it."""

    def make(self) -> Any:
        from fedray.executors.evaluator import EvaluatorWork

        return EvaluatorWork(self.job, this_device())

    def evaluate(self, buffer: Any, state: Any, grid: Path) -> dict[str, float]:
        return self.work.evaluate(buffer, state, grid)

    def export(self, buffer: Any, state: Any, folder: Path) -> None:
        self.work.export(buffer, state, folder)
