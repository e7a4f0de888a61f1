"""`evaluation.lm_eval`: tasks of the Language Model Evaluation Harness."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fedray.scenario.base import Count, FilePath, Refused, Section

PACKAGE = "lm_eval"
INSTALL = "pip install 'fedray[harness]'"


class LmEval(Section):
    """Tasks of the Language Model Evaluation Harness (EleutherAI's lm-evaluation-harness), as metrics
    `eval_lm_TASK_METRIC`. Tasks that ship with it download their data where they are not cached."""

    tasks: Annotated[list[str], Field(min_length=1)] = Field(
        description="Names of its tasks, groups or tags, such as mmlu, or of tasks of your own."
    )
    include: FilePath | None = Field(
        default=None,
        description="A folder with task files (YAML) of your own; Python functions that they name run. None: "
        "its own tasks alone.",
    )
    limit: Count | None = Field(
        default=None, description="Only the first so many questions of each task. None: all."
    )
    num_fewshot: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="Solved examples before each question. None: as the task has it."
    )
    batch_size: Count = Field(default=8, description="Questions that are answered in one go.")
    chat_template: bool = Field(
        default=False,
        description="Whether questions are written by the model's chat template (model.chat_template, or its "
        "tokenizer's).",
    )

    cites: ClassVar[tuple[str, ...]] = ("gao2024harness",)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if not scenario.model.of_conversations:
            got = f"some for a {scenario.model.kind}"
            yield Refused("evaluation.lm_eval", got, "language_model as model.kind, or none")
        if repeated := sorted({name for name in self.tasks if self.tasks.count(name) > 1}):
            yield Refused(".tasks", f"{repeated[0]!r} twice", "each task once")
