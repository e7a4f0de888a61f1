"""Wrong labels."""

import numpy as np

from fedray.adversary.attack import Attack
from fedray.adversary.poisoned import Poisoned
from fedray.data import Samples
from fedray.learners.contexts import EvaluationContext
from fedray.scenario.base import Refused


class LabelFlip(Attack):
    def samples(self, client: int, samples: Samples, indices: np.ndarray) -> Samples:
        becomes = self._becomes(samples)
        return Poisoned(samples, becomes[samples.labels])

    def verify(self, context: EvaluationContext) -> None:
        self._becomes(context.dataset.train)

    def _becomes(self, samples: Samples) -> np.ndarray:
        """Of each label [C] int64, the one that it becomes."""
        names = list(samples.label_names)
        if self.section.labels is None:
            return np.arange(len(names))[::-1]
        result = np.arange(len(names))
        for name, other in self.section.labels.items():
            result[label_number(names, name, ".labels")] = label_number(names, other, ".labels")
        return result


def label_number(names: list[str], name: str, key: str) -> int:
    """The number of a label.

    Raises:
        Refused: where there is none of this name.
    """
    if name not in names:
        raise Refused(f"adversary.attack{key}", repr(name), f"one of the data's labels: {', '.join(names)}")
    return names.index(name)
