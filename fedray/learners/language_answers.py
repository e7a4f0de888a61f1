"""What a causal language model answers, a token at a time."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from fedray.learners.chat_template import ChatTemplate, Turns
from fedray.scenario.base import Refused


class KeyedDraws:
    """A logits processor of transformers by which its greedy search draws: the largest of logits /
    temperature plus Gumbel noise is a draw from their softmax (Gumbel 1954). The noise comes from a seed, on
    the CPU: it is the same on every device."""

    def __init__(self, temperature: float, seed: int) -> None:
        self.temperature = temperature
        self.draws = torch.Generator().manual_seed(seed)

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """[b, vocabulary] of [b, vocabulary]; `tokens` are those before."""
        uniform = torch.rand(logits.shape, generator=self.draws, dtype=torch.float64)
        noise = -torch.log(-torch.log(uniform.clamp(min=1e-300)))
        return logits.double() / self.temperature + noise.to(logits.device)


class Answers:
    """The part of a language model that answers.

    Attributes:
        network: transformers'.
        device: where that is.
    """

    network: Any
    device: torch.device

    @property
    @abstractmethod
    def template(self) -> ChatTemplate:
        """How conversations are written."""

    @torch.no_grad()
    def answer(self, turns: Turns, new_tokens: int, temperature: float | None = None, seed: int = 0) -> str:
        """What the assistant says behind these turns, without white space around it.

        Args:
            turns: that end with the user's.
            new_tokens: at most so many.
            temperature: at which tokens are drawn; None: each is the likeliest.
            seed: of the draws.

        Raises:
            Refused: for turns of as many tokens as the base has positions for.
        """
        from transformers import GenerationConfig, LogitsProcessorList

        template = self.template
        ids = template.prompt(turns)
        places = getattr(self.network.config, "max_position_embeddings", None)
        if places is not None and len(ids) >= places:
            got = f"a prompt of {len(ids)} tokens"
            raise Refused("evaluation.prompts", got, f"less than {places}, the base's positions")
        ends = self.network.generation_config.eos_token_id
        own = [] if ends is None else ends if isinstance(ends, list) else [ends]
        config = GenerationConfig(
            max_new_tokens=new_tokens if places is None else min(new_tokens, places - len(ids)),
            do_sample=False,
            eos_token_id=sorted({*own, *template.end_ids}) or None,
            pad_token_id=template.padding,
            stop_strings=template.end_text,
        )
        draws = [] if temperature is None else [KeyedDraws(temperature, seed)]
        prompt = torch.tensor([ids], device=self.device)
        with self.evaluating(), self.autocast():  # type: ignore[attr-defined]
            written = self.network.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=config,
                logits_processor=LogitsProcessorList(draws),
                tokenizer=template.tokenizer,
            )
        text: str = template.tokenizer.decode(written[0, len(ids) :], skip_special_tokens=True).strip()
        return text.removesuffix(template.turn_end).strip() if template.end_text else text
