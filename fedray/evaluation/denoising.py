"""`evaluation.denoising`: the denoising loss on a folder's images, or on the test set."""

import numpy as np

from fedray.data import Samples
from fedray.data.image_folder import read
from fedray.evaluation.evaluation import Evaluation
from fedray.learners.contexts import EvaluationContext
from fedray.learners.denoising import denoising_loss, named
from fedray.learners.learner import Learner
from fedray.scenario.base import Refused


class DenoisingLoss(Evaluation):
    """See `learners.denoising.denoising_loss`."""

    def verify(self, context: EvaluationContext, downloaded: bool) -> None:
        if self.section.path is None:
            return
        samples = self._folder(context)
        try:
            for i in range(len(samples)):
                samples.image(i)
        except ValueError as e:
            raise Refused("evaluation.denoising.path", str(e), "images that open") from None

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        """`eval_denoising_loss`, and at each level of noise; nothing where there are no such images."""
        if self.section.path is None:
            test_set = None if context.at_sites else context.test_set()
            if test_set is None:
                return {}
            samples, indices = test_set
        else:
            samples = self._folder(context)
            indices = np.arange(len(samples))
        return named(denoising_loss(learner, samples, indices, self.section), "eval_denoising_loss")

    def _folder(self, context: EvaluationContext) -> Samples:
        section = self.section
        key = "evaluation.denoising"
        return read(section.path, context.folder, key, section.caption_key, None, section.folders)
