"""`evaluation.inference_cost`: what an image costs once the model is trained."""

from dataclasses import replace

import torch

from fedray.evaluation.evaluation import Evaluation
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.learners.learners import learner_class


class CostOfAnImage(Evaluation):
    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        """`eval_flops_per_image`, and `eval_added_parameters`: of adapters that are not merged, rows of new
        tokens, a ControlNet. They are the same in every round."""
        return {
            "eval_flops_per_image": float(learner.sample_flops(context.sampling)),
            "eval_added_parameters": float(_parameters(learner) - _parameters(_base(learner))),
        }


def _base(learner: Learner) -> Learner:
    """What the learner began with, of its shapes alone."""
    section = learner.section.model_copy(update={"prior": None, "control": None})
    context = replace(learner.context, device=torch.device("meta"))
    return learner_class(section).load(section, context)


def _parameters(learner: Learner) -> int:
    return sum(p.numel() for part in learner.parts.values() for p in part.parameters())
