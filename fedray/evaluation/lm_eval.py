"""Tasks of the Language Model Evaluation Harness, on the global model as it is in memory."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import cache
from typing import Any, Protocol, cast

from fedray.data.places import located
from fedray.errors import reason
from fedray.evaluation.evaluation import Evaluation
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.scenario.base import Refused
from fedray.scenario.lm_eval import LmEval as Section
from fedray.scenario.plugins import did_you_mean

KEY = "evaluation.lm_eval"
RESAMPLED = 100  # draws of the questions, for standard errors that have no formula


class OnTransformers(Protocol):
    """A learner of conversations whose network is one of transformers'."""

    def as_transformers(self) -> tuple[Any, Any]:
        """The network as it is in memory, and its tokenizer."""


class LmEval(Evaluation):
    """What `lm_eval.simple_evaluate` gives for the learner's network and tokenizer; nothing of the run's
    randomness is touched."""

    section: Section

    def verify(self, context: EvaluationContext, downloaded: bool) -> None:
        known = self._manager(context).all_tasks
        for name in self.section.tasks:
            if name not in known:
                expected = did_you_mean(name, known) or "a task, group or tag that `lm-eval ls tasks` lists"
                raise Refused(f"{KEY}.tasks", repr(name), expected)

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        """Every number of every task that is asked for.

        Raises:
            Refused: for a task whose data or code cannot be had.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        section = self.section
        network, tokenizer = cast(OnTransformers, learner).as_transformers()
        try:
            with _quiet(), learner.evaluating(), learner.autocast():
                model = HFLM(
                    pretrained=network,
                    tokenizer=tokenizer,
                    batch_size=section.batch_size,
                    device=str(learner.device),
                )
                results = simple_evaluate(
                    model=model,
                    tasks=list(section.tasks),
                    task_manager=self._manager(context),
                    num_fewshot=section.num_fewshot,
                    limit=section.limit,
                    apply_chat_template=section.chat_template,
                    bootstrap_iters=RESAMPLED,
                    log_samples=False,
                    random_seed=None,
                    numpy_random_seed=None,
                    torch_random_seed=None,
                )
        except (OSError, ValueError, KeyError, ImportError) as e:
            got = f"{', '.join(section.tasks)}: {type(e).__name__}: {reason(e)}"
            raise Refused(f"{KEY}.tasks", got, "tasks whose data are here or can be downloaded") from None
        return _metrics(results["results"], section.tasks)

    def _manager(self, context: EvaluationContext) -> Any:
        include = self.section.include
        place = None if include is None else str(located(include, context.folder, f"{KEY}.include"))
        return _manager(place, tuple(self.section.tasks))


@cache  # thousands of files that ship with the harness are read
def _manager(include: str | None, tasks: tuple[str, ...]) -> Any:
    """What knows the harness's tasks, unless a folder has all that are asked for.

    Args:
        include: the folder of a user's own tasks; None: there is none.
        tasks: the names that are asked for.
    """
    from lm_eval.tasks import TaskManager

    with _quiet():
        if include is not None:
            own = TaskManager(include_path=include, include_defaults=False)
            if set(tasks) <= set(own.all_tasks):
                return own
        return TaskManager(include_path=include)


def _metrics(results: Mapping[str, Mapping[str, Any]], tasks: list[str]) -> dict[str, float]:
    """Numbers by name: of the tasks and groups that are asked for, and of a tag's tasks, which have no
    number in common.

    Args:
        results: of each task, by `metric,filter`.
        tasks: the names that are asked for.
    """
    chosen = results
    if all(name in results for name in tasks):
        chosen = {name: results[name] for name in tasks}
    numbers = {}
    for task, values in chosen.items():
        for name, value in values.items():
            metric, comma, chain = name.partition(",")
            if comma and isinstance(value, int | float):
                called = f"{task}_{metric}" if chain == "none" else f"{task}_{metric}_{chain}"
                numbers["eval_lm_" + re.sub(r"\W", "_", called)] = float(value)
    return numbers


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and remarks, which would run over the run's own lines."""
    with redirect_stderr(io.StringIO()):
        yield
