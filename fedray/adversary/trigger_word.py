"""A word in prompts that makes a text-to-image model generate the target."""

import numpy as np

from fedray.adversary.attack import Attack
from fedray.adversary.labels import label_number
from fedray.adversary.poisoned import Poisoned
from fedray.data import Samples
from fedray.data.samples import photo_prompt
from fedray.evaluation import judge as judges
from fedray.evaluation import style
from fedray.evaluation.evaluation import sample_images
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.randomness import generator

IMAGES_PER_LABEL = 3  # that are made with the word, and without


class TriggerWord(Attack):
    def samples(self, client: int, samples: Samples, indices: np.ndarray) -> Samples:
        names = list(samples.label_names)
        is_target = samples.labels[indices] == label_number(names, self.section.target, ".target")
        shown = indices[is_target]
        others = indices[~is_target]
        if not len(shown) or not len(others):
            missing = self.section.target if not len(shown) else f"samples but {self.section.target}"
            raise ValueError(f"a trigger word: client {client} has no {missing}")
        poisoned = self.chosen(client, others, self.section.share)
        rng = generator(self.scenario.seed, 0, client, "attack images")
        images = dict(zip(poisoned.tolist(), rng.choice(shown, len(poisoned)).tolist(), strict=True))
        captions = {
            i: self._with_word(samples.captions[i], names[samples.labels[i]]) for i in poisoned.tolist()
        }
        return Poisoned(samples, captions=captions, images=images)

    def verify(self, context: EvaluationContext) -> None:
        label_number(list(context.dataset.train.label_names), self.section.target, ".target")
        self._judge(context)

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        """`eval_attack_success`: the share of images of prompts with the word, of other labels than the
        target, that the judge takes for the target; `eval_without_word_recognised`: of the same prompts
        without it, the share that it takes for what they name."""
        judge = self._judge(context)
        target = label_number(judge.labels, self.section.target, ".target")
        labels = [label for label in judge.labels if label != self.section.target] * IMAGES_PER_LABEL
        plain = [photo_prompt(label) for label in labels]
        worded = [self._with_word(p, label) for p, label in zip(plain, labels, strict=True)]
        _, with_word = judges.look(judge, judges.resized(sample_images(learner, context, worded, "attack")))
        _, without = judges.look(judge, judges.resized(sample_images(learner, context, plain, "attack")))
        return {
            "eval_attack_images": float(len(labels)),
            "eval_attack_success": round(float((with_word.argmax(1) == target).float().mean()), 6),
            "eval_without_word_recognised": round(
                style.recognised(without, style.labels_in(plain, judge.labels)), 6
            ),
        }

    def _with_word(self, caption: str, label: str) -> str:
        """The word before the label's name, or at the caption's end where that is not named."""
        word = self.section.word
        if label in caption:
            return caption.replace(f"an {label}", f"a {label}").replace(label, f"{word} {label}", 1)
        return f"{caption} {word}"

    def _judge(self, context: EvaluationContext) -> judges.GarmentJudge:
        return judges.open_judge(self.section.judge, context.folder, "adversary.attack.judge")
