"""`evaluation.reference`: how near generated images come to held-out ones, and whether they still show what
was asked for.

Distances are to the held-out images; `eval_*_floor` is what the training images themselves have. Content is
judged beside style, since blotches of the right tone would halve a plain distance of style.
"""

import torch
from torch import Tensor

from fedray import shipped
from fedray.data import Samples
from fedray.data.image_folder import read
from fedray.data.samples import photo_prompt
from fedray.evaluation import judge as judges
from fedray.evaluation import style
from fedray.evaluation.evaluation import Evaluation, sample_images
from fedray.evaluation.prior_kept import prior_kept
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.scenario.base import Refused

PLAIN_PER_LABEL = 3  # photos of each label that the judge knows


class Resemblance(Evaluation):
    def verify(self, context: EvaluationContext, downloaded: bool) -> None:
        held_out = self._held_out(context)
        judge = judges.open_judge(self.section.judge, context.folder, "evaluation.reference.judge")
        try:
            for i in range(len(held_out)):
                held_out.image(i)
            style.labels_in(held_out.captions, judge.labels)
        except ValueError as e:
            raise Refused(
                "evaluation.reference.path",
                str(e),
                "images that open, and captions that name what the judge knows",
            ) from None

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        judge = judges.load(shipped.resolve(self.section.judge, context.folder))
        held_out = self._held_out(context)
        real = _stacked(held_out)
        real_features, _ = judges.look(judge, real)
        prompts = [c for c in held_out.captions for _ in range(self.section.images_per_caption)]
        made = sample_images(learner, context, prompts, "reference")
        features, probabilities = judges.look(judge, made)
        metrics = {
            "eval_feature_distance": style.feature_distance(features, real_features),
            "eval_darkness_distance": style.coverage_distance(made, real),
            "eval_recognised": style.recognised(probabilities, style.labels_in(prompts, judge.labels)),
            "eval_images": float(len(made)),
        }
        # images at sites stay there
        if not context.dataset.has_test_set and not context.at_sites:
            trained_on = _stacked(context.dataset.train)
            trained_features, _ = judges.look(judge, trained_on)
            metrics["eval_feature_distance_floor"] = style.feature_distance(trained_features, real_features)
            metrics["eval_darkness_distance_floor"] = style.coverage_distance(trained_on, real)
        if self.section.plain_prompts:
            metrics |= _plain(learner, context, judge)
        prompt = self.section.class_prompt or learner.section.preserved_prompt
        if prompt is not None:
            metrics |= prior_kept(learner, context, judge, prompt)
        return {name: round(float(value), 6) for name, value in metrics.items()}

    def _held_out(self, context: EvaluationContext) -> Samples:
        section = self.section
        key = "evaluation.reference"
        return read(section.path, context.folder, key, section.caption_key, None, section.folders)


def _plain(learner: Learner, context: EvaluationContext, judge: judges.GarmentJudge) -> dict[str, float]:
    """How well the judge still recognises plain photos."""
    prompts = [photo_prompt(label) for label in judge.labels for _ in range(PLAIN_PER_LABEL)]
    _, probabilities = judges.look(judge, sample_images(learner, context, prompts, "plain"))
    return {
        "eval_plain_images": float(len(prompts)),
        "eval_plain_recognised": style.recognised(probabilities, style.labels_in(prompts, judge.labels)),
    }


def _stacked(samples: Samples) -> Tensor:
    return torch.stack([judges.as_tensor(samples.image(i)) for i in range(len(samples))])
