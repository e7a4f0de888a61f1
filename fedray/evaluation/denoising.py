"""`evaluation.denoising`: the denoising loss on a folder's images."""

import numpy as np

from fedray.data import Samples
from fedray.data.image_folder import read
from fedray.evaluation.evaluation import Evaluation
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.scenario.base import Refused


class DenoisingLoss(Evaluation):
    def verify(self, context: EvaluationContext, downloaded: bool) -> None:
        samples = self._samples(context)
        try:
            for i in range(len(samples)):
                samples.image(i)
        except ValueError as e:
            raise Refused("evaluation.denoising.path", str(e), "images that open") from None

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        """Every image `draws` times; noise and timesteps are those of every other round."""
        samples = self._samples(context)
        indices = np.tile(np.arange(len(samples)), self.section.draws)
        measured = learner.measure(samples, indices)
        return {"eval_denoising_loss": round(measured["eval_loss"], 6)}

    def _samples(self, context: EvaluationContext) -> Samples:
        section = self.section
        key = "evaluation.denoising"
        return read(section.path, context.folder, key, section.caption_key, None, section.folders)
