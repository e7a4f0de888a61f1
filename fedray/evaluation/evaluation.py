"""The base class of evaluations beside a learner's own."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.scenario.evaluation import EvaluationSection


class Evaluation(ABC):
    """A measure of the global model, taken in every round that is evaluated. For example how bright images of
    bags are:

        class Brightness(Evaluation):
            def measure(self, learner, context):
                prompts = ["a photo of a bag"] * self.section.images
                images = sample_images(learner, context, prompts, "bags")
                return {"eval_brightness": float(images.mean())}
    """

    Section: ClassVar[type[EvaluationSection]] = EvaluationSection

    def __init__(self, section: Any) -> None:
        """`section`: what the scenario says of this evaluation."""
        self.section = section

    def verify(self, context: EvaluationContext, downloaded: bool) -> None:  # noqa: B027 (or nothing to)
        """Whatever can be refused before anything trains.

        Args:
            context: as for `measure`; nothing is written.
            downloaded: whether the data are there, and can be looked at.

        Raises:
            Refused: for a file that is missing, or data that do not fit.
        """

    @abstractmethod
    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        """Metrics by name, each beginning with `eval_`."""


def sample_images(
    learner: Learner, context: EvaluationContext, prompts: Sequence[str], purpose: str
) -> Tensor:
    """[n, 3, h, w] in 0..1, one a prompt; image i has the same noise in every round.

    Args:
        learner: one that generates images.
        context: says in how many steps, and with which guidance.
        prompts: n of them, not read by a learner that takes none.
        purpose: images of another purpose have other noise.
    """
    made = learner.sample(prompts, context.seeds(len(prompts), purpose), context.sampling)
    assert isinstance(made, Tensor), "a learner of images"
    return made
