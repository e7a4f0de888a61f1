"""`evaluation.quality`: generated images against as many real ones."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedray import shipped
from fedray.evaluation import judge as judges
from fedray.evaluation import quality, style
from fedray.evaluation.evaluation import Evaluation, sample_images
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.randomness import SERVER, generator, key
from fedray.scenario.base import Refused


class AgainstReal(Evaluation):
    """classifier-FID, KID, precision and recall (see `quality.measure`); of a learner that takes prompts also
    the share of images in which the judge recognises what their prompts name, where that is its labels."""

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
        prompts = learner.prompts_of(samples, chosen)
        made = sample_images(learner, context, prompts, "quality")
        seen = judges.resized(made)
        metrics = quality.measure(judge, real, seen, key(context.seed, 0, SERVER, "kid"))
        if learner.section.takes_prompts and (labels := _labels(prompts, judge)) is not None:
            metrics["eval_recognised"] = style.recognised(judges.look(judge, seen)[1], labels)
        return metrics


def _labels(prompts: Sequence[str], judge: judges.GarmentJudge) -> Tensor | None:
    """The judge's label that each prompt names, [n]; None where one names none."""
    try:
        return style.labels_in(prompts, judge.labels)
    except ValueError:
        return None
