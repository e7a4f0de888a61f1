"""`evaluation.quality`: generated images against as many real ones."""

import torch

from fedray import shipped
from fedray.evaluation import judge as judges
from fedray.evaluation import quality
from fedray.evaluation.evaluation import Evaluation, sample_images
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.randomness import SERVER, generator, key
from fedray.scenario.base import Refused


class AgainstReal(Evaluation):
    """classifier-FID, KID, precision and recall (see `quality.measure`)."""

    def verify(self, context: EvaluationContext, downloaded: bool) -> None:
        judges.open_judge(self.section.judge, context.folder, "evaluation.quality.judge")
        if downloaded and (real := len(context.dataset.real)) < self.section.images:
            raise Refused(
                "evaluation.quality.images",
                self.section.images,
                f"at most the {real} real images there are",
            )

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        judge = judges.load(shipped.resolve(self.section.judge, context.folder))
        samples = context.dataset.real
        draws = generator(context.seed, 0, SERVER, "quality")
        chosen = draws.choice(len(samples), self.section.images, replace=False)
        real = torch.stack([judges.as_tensor(samples.image(int(i))) for i in chosen])
        prompts = [samples.captions[int(i)] for i in chosen]
        made = sample_images(learner, context, prompts, "quality")
        return quality.measure(judge, real, judges.resized(made), key(context.seed, 0, SERVER, "kid"))
