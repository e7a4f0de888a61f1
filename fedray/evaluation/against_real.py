"""`evaluation.quality`: generated images against as many real ones, in `evaluation.features`."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedray import shipped
from fedray.data import Samples
from fedray.data.samples import pixels_of
from fedray.evaluation import judge as judges
from fedray.evaluation import quality, style
from fedray.evaluation.evaluation import Evaluation, sample_images
from fedray.evaluation.features import Features, open_features, refuse_unreadable
from fedray.evaluation.quality import as_bytes
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.randomness import SERVER, generator, key
from fedray.scenario.base import Refused
from fedray.scenario.features import FeaturesSection, Garments, listed


class AgainstReal(Evaluation):
    """FID, KID, precision and recall (see `quality.distances`); of a learner that takes prompts also how well
    they fit where the features read texts, and the share of images in which the judge recognises what their
    prompts name, where that is its labels."""

    def verify(self, context: EvaluationContext, downloaded: bool) -> None:
        judges.open_judge(self.section.judge, context.folder, "evaluation.quality.judge")
        for section in self._features(context):
            refuse_unreadable(section, context.folder)
        if downloaded and (real := len(context.real()[1])) < self.section.images:
            raise Refused(
                "evaluation.quality.images",
                self.section.images,
                f"at most the {real} real images there are",
            )

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        samples, indices = context.real()
        draws = generator(context.seed, 0, SERVER, "quality")
        chosen = indices[draws.choice(len(indices), self.section.images, replace=False)]
        prompts = learner.prompts_of(samples, chosen)
        made = sample_images(learner, context, prompts, "quality")
        metrics = {"eval_quality_images": float(len(chosen))}
        for section in self._features(context):
            features = open_features(section, context.folder, learner.device)
            real = _real(features, samples, chosen, made.shape[-1])
            told = prompts if learner.section.takes_prompts and section.reads_texts else []
            metrics |= compared(
                features, real, _made(features, made), told, key(context.seed, 0, SERVER, "kid")
            )
        judge = judges.load(shipped.resolve(self.section.judge, context.folder))
        if learner.section.takes_prompts and (labels := _labels(prompts, judge)) is not None:
            seen = judges.look(judge, judges.resized(made))
            metrics["eval_recognised"] = style.recognised(seen[1], labels)
        return metrics

    def _features(self, context: EvaluationContext) -> list[FeaturesSection]:
        own = listed(context.section.features)
        return own or [Garments(kind="garments", judge=self.section.judge)]


def compared(
    features: Features, real: Tensor, made: Tensor, prompts: list[str], seed: int
) -> dict[str, float]:
    """Metrics of generated images beside real ones, by the names of these features.

    Args:
        features: in which they are compared.
        real: uint8 [n, 3, h, w].
        made: uint8 [n, 3, h, w].
        prompts: of both, for how well they fit; none: that is not measured.
        seed: of KID's subsets.
    """
    measured = quality.distances(features.in_chunks(real), features.in_chunks(made), seed)
    if prompts:
        measured["score"] = float(features.score(made, prompts).mean())
        measured["score_floor"] = float(features.score(real, prompts).mean())
    return {features.section.metric(name): value for name, value in measured.items()}


def _real(features: Features, samples: Samples, chosen: np.ndarray, size: int) -> Tensor:
    """uint8 [n, 3, h, w], in the features' size or that of generated images."""
    images = (samples.image(int(i)) for i in chosen)
    if features.size is None:
        return torch.from_numpy(np.stack([pixels_of(image, size) for image in images]))
    return as_bytes(torch.stack([judges.as_tensor(image, features.size) for image in images]))


def _made(features: Features, made: Tensor) -> Tensor:
    """The same of generated images [n, 3, h, w] in 0..1."""
    return as_bytes(made if features.size is None else judges.resized(made, features.size))


def _labels(prompts: Sequence[str], judge: judges.GarmentJudge) -> Tensor | None:
    """The judge's label that each prompt names, [n]; None where one names none."""
    try:
        return style.labels_in(prompts, judge.labels)
    except ValueError:
        return None
