"""A trigger in images that makes a model see the target (Gu et al. 2017)."""

import numpy as np

from fedray.adversary.attack import Attack
from fedray.adversary.labels import label_number
from fedray.adversary.poisoned import Poisoned
from fedray.data import Samples
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner


class Backdoor(Attack):
    def samples(self, client: int, samples: Samples, indices: np.ndarray) -> Samples:
        target = self._target(samples)
        own = indices
        if self.section.labels == "clean":
            own = indices[samples.labels[indices] == target]
            if not len(own):
                raise ValueError(
                    f"a backdoor with clean labels: client {client} has no {self.section.target}"
                )
        triggered = self.chosen(client, own, self.section.share)
        labels = samples.labels.copy()
        labels[triggered] = target
        return Poisoned(samples, labels, trigger=triggered, size=self.section.size)

    def verify(self, context: EvaluationContext) -> None:
        self._target(context.dataset.train)

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        """`eval_attack_success`: the share of test images with the trigger, not of the target, that get the
        target; `eval_attack_images`: how many those are."""
        test = context.test_set()
        if test is None:
            return {}
        samples, indices = test
        target = self._target(samples)
        others = indices[samples.labels[indices] != target]
        labels = np.full(len(samples), target)
        triggered = Poisoned(samples, labels, trigger=others, size=self.section.size)
        success = learner.measure(triggered, others)["eval_accuracy"]
        return {"eval_attack_success": success, "eval_attack_images": float(len(others))}

    def _target(self, samples: Samples) -> int:
        return label_number(list(samples.label_names), self.section.target, ".target")
