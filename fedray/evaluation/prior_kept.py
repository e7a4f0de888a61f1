"""Whether a class stays as the base has it while one thing of it is learnt: images of the class's prompt
beside the base's own from the same noise."""

from fedray.data.captions import label_in
from fedray.evaluation import style
from fedray.evaluation.evaluation import sample_images
from fedray.evaluation.judge import GarmentJudge, look
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.learners.prior import untouched

IMAGES = 16


def prior_kept(
    learner: Learner, context: EvaluationContext, judge: GarmentJudge, prompt: str
) -> dict[str, float]:
    """How far the class's mean features are from the base's own; and the shares of both that the judge
    recognises, where the prompt names one of its labels.

    Args:
        learner: whose images are compared with its untouched base's.
        context: says in how many steps, and with which guidance.
        judge: whose features are compared.
        prompt: names the class.
    """
    prompts = [prompt] * IMAGES
    features, probabilities = look(judge, sample_images(learner, context, prompts, "prior"))
    base_features, of_base = look(judge, sample_images(untouched(learner), context, prompts, "prior"))
    metrics = {"eval_prior_feature_distance": style.feature_distance(features, base_features)}
    if label_in(prompt, judge.labels) is not None:
        labels = style.labels_in(prompts, judge.labels)
        metrics["eval_prior_recognised"] = style.recognised(probabilities, labels)
        metrics["eval_prior_recognised_base"] = style.recognised(of_base, labels)
    return metrics
