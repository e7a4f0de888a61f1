"""What each client's update adds to the global model, by images that the server holds out."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedray.data.clients import split_test_set
from fedray.executors import Job
from fedray.executors.model import Model
from fedray.incentives.incentive import Incentive
from fedray.scenario import Refused
from fedray.scenario.kinds import implementation

WORST = 1e6  # what a loss counts for at most, also one that is no number


class Validation:
    """Compares global models that are made of some of a round's updates. Its own model stays in the
    processor's memory from round to round."""

    def __init__(self, job: Job) -> None:
        section = job.scenario.incentive
        assert section is not None
        self.section: Any = section  # one that validates updates
        self.mechanism: Incentive = implementation(section)(section)
        self.samples = job.dataset.test
        self.held_out, _ = split_test_set(job.scenario, len(self.samples))
        self.model = Model(job, torch.device("cpu"))

    def contributions(
        self,
        updates: Mapping[int, tuple[int, np.ndarray]],
        made_of: Callable[[Mapping[int, tuple[int, np.ndarray]]], Tensor],
    ) -> dict[int, float]:
        """What each update adds, by client: less loss or more accuracy.

        Args:
            updates: each client with its weight and its update [summed] fp32.
            made_of: the global numbers [received] fp32 that the server makes of some of them.
        """
        clients = list(updates)

        def worth(coalition: tuple[int, ...]) -> float:
            return self.worth(made_of({clients[i]: updates[clients[i]] for i in coalition}))

        added = self.mechanism.contributions(len(clients), worth)
        return dict(zip(clients, added.tolist(), strict=True))

    def worth(self, numbers: Tensor) -> float:
        """Of a global model [received] fp32: its accuracy, or what its loss is below 0.

        Raises:
            Refused: where the model does not measure that.
        """
        self.model.load(numbers)
        measure: str = getattr(self.section, "measure", "loss")
        metrics = self.model.learner.measure(self.samples, self.held_out)
        if (measured := metrics.get(f"eval_{measure}")) is None:
            raise Refused("incentive.measure", measure, f"one of {', '.join(sorted(metrics))}")
        if measure == "accuracy":
            return measured
        return -min(measured, WORST) if math.isfinite(measured) else -WORST
