"""How many answers of a language model are exactly those of the test set."""

from __future__ import annotations

from operator import eq
from typing import cast

import numpy as np

from fedray.evaluation.evaluation import Evaluation
from fedray.learners.contexts import EvaluationContext
from fedray.learners.language_answers import Answers
from fedray.learners.learner import Learner
from fedray.randomness import SERVER, generator
from fedray.scenario.base import Refused


class ExactMatch(Evaluation):
    """Of each conversation the last answer, asked for by the turns before it, a token at a time, each the
    likeliest; the section is how many conversations there are. The same ones in every round."""

    section: int

    def verify(self, context: EvaluationContext, downloaded: bool) -> None:
        if not downloaded or context.at_sites:
            return
        test_set = context.test_set()
        if test_set is None:
            got = f"{self.section} of data without a test set"
            raise Refused("evaluation.exact_match", got, "data with held-out samples, or none")
        if len(test_set[1]) < self.section:
            got = f"{self.section}, of {len(test_set[1])} samples to test on"
            raise Refused("evaluation.exact_match", got, f"at most {len(test_set[1])}")

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        """The share of answers that match, and of how many."""
        test_set = context.test_set()
        assert test_set is not None, "verified"
        samples, indices = test_set
        draw = generator(context.seed, 0, SERVER, "exact match")
        chosen = np.sort(draw.choice(indices, self.section, replace=False))
        asked = []
        expected = []
        for i in chosen:
            *turns, (_, answer) = samples.conversation(int(i))
            asked.append(turns)
            expected.append(answer.strip())
        answers = cast(Answers, learner).likeliest_answers(asked, context.section.new_tokens)
        matches = sum(map(eq, answers, expected))
        return {
            "eval_exact_match": matches / self.section,
            "eval_exact_match_samples": float(self.section),
        }
