"""A causal language model that learns what the assistant says in conversations, on transformers' networks.

The loss is transformers' own: the mean over all of a batch's tokens that the assistant says.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from fedray.data import Samples
from fedray.learners.base_networks import libraries_refuse
from fedray.learners.base_precision import BasePrecision
from fedray.learners.chat_template import ChatTemplate, cut_conversations, open_template
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.language_adapters import PeftAdapters
from fedray.learners.language_answers import Answers
from fedray.learners.language_bases import locate, refuse_too_long, refuse_uncut
from fedray.learners.language_network import KEEP, PART, POSITIONS, open_network, untie
from fedray.learners.language_rows import rows
from fedray.learners.language_stages import pieces
from fedray.learners.learner import Learner
from fedray.learners.losses import token_mean
from fedray.learners.stages import Stage, inputs, run
from fedray.learners.transformer import UNJUDGED, Tokens
from fedray.scenario.base import Refused
from fedray.scenario.language_model import LanguageModel as Section
from fedray.scenario.tuning_section import TuningSection

AT_ONCE = 8  # samples of a test set that are measured in one go: each has length x vocabulary logits
NEAR = 0.02  # by which logits may differ, relative to the largest, that two ways of computing them give


class LanguageModel(PeftAdapters, Answers, Learner):
    """The network and the chat template of one base."""

    caches_samples = True
    weights_file: ClassVar[str] = "model.safetensors"

    def __init__(self, section: Section, context: LearnerContext) -> None:
        """With weights: in the dtype that is computed in. On the meta device: from the configuration."""
        super().__init__(section, context)
        self.base = locate(section.base, context.folder)
        with libraries_refuse(section.base, self.device):
            precision = BasePrecision.of(context.base_precision, self.compute, context.devices)
            self.network = open_network(self.base, section.base, self.device, precision)
        config = self.network.config.to_dict()
        refuse_too_long(section, config)
        self.parts = {PART: self.network}
        self.cut = context.in_stages
        if self.cut:
            refuse_uncut(section, config)
            untie(self.network)
        if self.device.type != "meta":
            _ = self.template
            self._verify_forward()

    @cached_property
    def template(self) -> ChatTemplate:
        """How the base writes conversations. Raises Refused where it does not say so."""
        with libraries_refuse(self.section.base, self.device):
            template = open_template(self.section, self.base, self.context.folder)
        template.verify()
        return template

    @property
    def stages(self) -> tuple[Stage, ...]:  # type: ignore[override]
        """Of a learner that is cut; with adapters, once it has them."""
        if not self.cut:
            return ()
        loss = Stage("loss", ("x", "targets"), ("loss",), token_mean, optional=("weight",))
        return self.staged(pieces(self.network), loss)

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        super().prepare_training(gradient_checkpointing)
        if gradient_checkpointing:
            self.network.gradient_checkpointing_enable({"use_reentrant": False})

    # Samples

    def encode(self, samples: Samples, indices: np.ndarray) -> Tokens:
        """Tokens [n, max_length], and of each the next one, where that is the assistant's. Raises ValueError
        for a conversation that the chat template does not allow."""
        most = self.section.max_length
        tokens = np.full((len(indices), most), self.template.padding)
        targets = np.full((len(indices), most), UNJUDGED)
        for row, i in enumerate(indices):
            try:
                encoded = self.template.encode(samples.conversation(int(i)))
            except ValueError as e:
                raise ValueError(f"sample {int(i)}: {e}") from None
            ids = np.array(encoded.ids[:most])
            judged = np.array(encoded.judged[:most])
            tokens[row, : len(ids)] = ids
            targets[row, : len(ids) - 1] = np.where(judged[1:], ids[1:], UNJUDGED)
        return Tokens(torch.from_numpy(tokens).to(self.device), torch.from_numpy(targets).to(self.device))

    def draw(self, shard: Tokens, indices: np.ndarray, generator: torch.Generator) -> Tokens:
        i = torch.from_numpy(indices).to(self.device)
        return Tokens(shard.tokens[i], shard.targets[i])

    def blank_shard(self, n: int) -> Tokens:
        """Of which every token is judged."""
        blank = torch.zeros(n, self.section.max_length, dtype=torch.long, device=self.device)
        return Tokens(blank, blank)

    def blank_batch(self) -> tuple[Tokens, int]:
        return self.draw(self.blank_shard(1), np.arange(1), torch.Generator()), 1

    # Loss

    def loss(self, batch: Tokens) -> Tensor:
        """The mean over the batch's tokens that are judged, 0 where none is. Logits are made of these
        alone."""
        given = rows(batch, self.section.packing)
        return token_mean(
            self._logits(given.tokens, given.positions, given.columns), given.targets, given.weights
        )

    def counted(self, batch: Tokens, samples: int) -> float:
        """What the loss is a mean over: tokens that are judged.

        Args:
            batch: a step's, or a part of one.
            samples: that it has.
        """
        return float(max(1, int((batch.targets != UNJUDGED).sum())))

    def _logits(self, tokens: Tensor, positions: Tensor, columns: Tensor) -> Tensor:
        """[r, c, vocabulary] of some columns.

        Args:
            tokens: [r, m].
            positions: [r, m], which begin again with each sample.
            columns: [c].
        """
        options: dict[str, Tensor] = {}
        if tokens.is_meta:  # where nothing can be found out of the positions; of any mask, as many operations
            options["attention_mask"] = tokens.new_ones(1, 1, *[tokens.shape[1]] * 2, dtype=torch.bool)
        elif self.section.packing:
            options[POSITIONS] = positions
        if KEEP in self._arguments:
            options[KEEP] = columns
        with self.autocast():
            logits: Tensor = self.network(input_ids=tokens, use_cache=False, **options).logits
        return logits if KEEP in self._arguments else logits[:, columns]

    @cached_property
    def _arguments(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.network.forward).parameters)

    @torch.no_grad()
    def _verify_forward(self) -> None:
        """That this base, with its weights, gives the same logits packed, and in stages, as it gives by
        itself.

        Raises:
            Refused: where it does not: what stands beside a sample would change it.
        """
        if not (self.section.packing or self.cut):
            return
        places = torch.arange(3, device=self.device)
        tokens = torch.stack([places, places.flip(0)]) % self.network.config.vocab_size
        with self.evaluating(), self.autocast():
            alone = self.network(input_ids=tokens, use_cache=False).logits
        what = f"a {self.network.config.model_type}"
        if self.section.packing:
            if POSITIONS not in self._arguments:
                raise Refused("model.packing", f"true for {what}, which takes no positions", "false")
            with self.evaluating():
                packed = self._logits(
                    tokens.view(1, -1), places.repeat(2)[None], torch.arange(6, device=self.device)
                )
            if not _near(packed.view_as(alone), alone):
                got = f"true for {what}, whose samples would see each other"
                raise Refused("model.packing", got, "false")
        if self.cut:
            with self.evaluating():
                staged = run(self.stages[:-1], inputs(Tokens(tokens, tokens)))["x"]
            if not _near(staged, alone):
                expected = (
                    "parallel or relay: its layers in stages give other numbers than its own forward pass"
                )
                raise Refused("topology.kind", f"split for {what}", expected)

    # Evaluation

    @torch.no_grad()
    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, float]:
        """The mean loss over all tokens that are judged in these samples of a test set, and its exponential.

        Raises:
            ValueError: where none is judged.
        """
        total = 0.0
        judged = 0
        with self.evaluating():
            for start in range(0, len(indices), AT_ONCE):
                batch = self.encode(samples, indices[start : start + AT_ONCE])
                n = int((batch.targets != UNJUDGED).sum())
                total += float(self.loss(batch)) * n
                judged += n
        if not judged:
            got = f"no answer within model.max_length, {self.section.max_length} tokens,"
            raise ValueError(f"got {got} in {len(indices)} samples to test on, expected one at least")
        loss = total / judged
        return {
            "eval_loss": loss,
            "eval_perplexity": float(np.exp(loss)),
            "eval_samples": float(len(indices)),
        }

    @torch.no_grad()
    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> list[str]:
        """The assistant's answers, each to a conversation of one prompt, from draws of its own seed."""
        return [
            self.answer([("user", prompt)], sampling.new_tokens, sampling.temperature, seed)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def as_transformers(self) -> tuple[Any, Any]:
        """The network as it is in memory, and its tokenizer."""
        return self.network, self.template.tokenizer

    # Files

    def save(self, folder: Path) -> None:
        """What `AutoModelForCausalLM` and `AutoTokenizer` read; the tokenizer has the chat template."""
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.network.save_pretrained(folder)
        self.template.tokenizer.save_pretrained(folder)

    @classmethod
    def from_export(cls, section: Section, context: LearnerContext, folder: Path) -> Self:
        """An exported model is a base like any other, and has its chat template."""
        own = {"base": str(folder.resolve()), "chat_template": None}
        return cls.load(section.model_copy(update=own), context)

    @classmethod
    def notes(cls, section: Section, folder: Path, samples: Samples, tuning: TuningSection) -> list[str]:
        try:
            template = open_template(section, locate(section.base, folder), folder, here=True)
        except OSError:  # the tokenizer is not on this machine
            return []
        template.verify()
        conversations = [samples.conversation(i) for i in range(len(samples))]
        note = cut_conversations(template, conversations, section.max_length)
        return [note] if note else []


def _near(logits: Tensor, others: Tensor) -> bool:
    """Whether two ways of computing them give the same logits, but for rounding."""
    scale = others.float().abs().max().clamp(min=1e-6)
    return bool((logits.float() - others.float()).abs().max() <= NEAR * scale)
