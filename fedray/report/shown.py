"""Which of the metrics that runs recorded have pictures and rows of their own."""

from collections.abc import Sequence

from fedray.report import client_tests, levels, numbers
from fedray.report.recorded import Recorded


def shown_metrics(runs: Sequence[Recorded]) -> list[str]:
    """The loss, what was evaluated, and what rounds report beside, but for numbers that belong to others."""
    metrics = list(
        dict.fromkeys(
            k for run in runs for row in (*run.rows, run.baseline) for k in row if k.startswith("eval_")
        )
    )
    of_rules = {k for k in metrics for run in runs if levels.belongs_to_rule(run, k)}
    of_rounds = [k for k in numbers.OF_ROUNDS if any(k in row for run in runs for row in run.rows)]
    evaluated = [k for k in metrics if is_main(k) and k not in of_rules]
    return ["loss", *evaluated, *of_rounds]


def is_main(key: str) -> bool:
    """Whether a metric is the loss or an evaluation's, and belongs to no other one."""
    if not key.startswith("eval_"):
        return key == "loss"
    return not key.endswith(numbers.BESIDE) and not client_tests.is_beside(key)
