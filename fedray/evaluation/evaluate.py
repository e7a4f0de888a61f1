"""What is evaluated after a round: what the learner measures itself and the samples it writes, then the
evaluations that a scenario asks for beside that."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fedray.data import Dataset
from fedray.data.clients import split_test_set
from fedray.data.sources import to_download
from fedray.evaluation.against_real import AgainstReal
from fedray.evaluation.denoising import DenoisingLoss
from fedray.evaluation.evaluation import Evaluation
from fedray.evaluation.exact_match import ExactMatch
from fedray.evaluation.gradient_bound import GradientBound
from fedray.evaluation.inference_cost import CostOfAnImage
from fedray.evaluation.lm_eval import LmEval
from fedray.evaluation.resemblance import Resemblance
from fedray.evaluation.transmission import Transmissions
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.scenario.base import Refused
from fedray.scenario.evaluation import Evaluation as EvaluationSection
from fedray.scenario.kinds import implementation
from fedray.scenario.scenario import Scenario

# by their sections' names in `evaluation`, in the order in which they are made
EVALUATIONS: dict[str, type[Evaluation]] = {
    "reference": Resemblance,
    "quality": AgainstReal,
    "denoising": DenoisingLoss,
    "inference_cost": CostOfAnImage,
    "transmission": Transmissions,
    "gradient_bound": GradientBound,
    "exact_match": ExactMatch,
    "lm_eval": LmEval,
}


def evaluations(section: EvaluationSection) -> Iterator[Evaluation]:
    """Those that a scenario asks for."""
    for name, made in EVALUATIONS.items():
        if (own := getattr(section, name)) is not None:
            yield made(own)
    for own in section.measures:
        yield implementation(own)(own)


def evaluate(
    learner: Learner, context: EvaluationContext, others: Sequence[Evaluation] = ()
) -> dict[str, float]:
    """All metrics of a round, by name; samples are written to `context.sheet`.

    Args:
        learner: has the global model.
        context: of the scenario.
        others: measured beside what `evaluation` asks for.
    """
    metrics = learner.evaluate(context)
    for evaluation in (*evaluations(context.section), *others):
        metrics |= evaluation.measure(learner, context)
    return metrics


def verify(
    scenario: Scenario,
    folder: Path,
    dataset: Dataset | None = None,
    others: Sequence[Evaluation] = (),
) -> None:
    """That every file that an evaluation needs opens and fits, and that there are enough held-out samples.

    Args:
        scenario: whose evaluations.
        folder: where its relative paths start.
        dataset: its data, where they are open already.
        others: evaluations beside what `evaluation` asks for.

    Raises:
        Refused: where not.
    """
    dataset = dataset or Dataset.of(scenario, folder)
    downloaded = to_download(scenario.data, folder) is None
    context = EvaluationContext.of(scenario, folder, Path(), dataset)
    for evaluation in (*evaluations(scenario.evaluation), *others):
        evaluation.verify(context, downloaded)
    if not downloaded:
        return
    if scenario.held_out_images and dataset.has_test_set:
        split_test_set(scenario, len(dataset.test))
    leakage = scenario.evaluation.leakage
    if leakage is None:
        return
    least = leakage.least_held_out(scenario)
    n = len(split_test_set(scenario, len(dataset.test))[1]) if dataset.has_test_set else len(dataset.real)
    if n < least:
        got = f"{n} samples that nobody trains on"
        raise Refused("evaluation.leakage", got, f"at least {least} for a view of {leakage.view}")
