"""What a causal language model answers, a token at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fedray.learners.chat_template import ChatTemplate, Turns
from fedray.scenario.base import Refused

AT_ONCE = 16  # answers that are written together


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
        draws = [] if temperature is None else [KeyedDraws(temperature, seed)]
        return self._written([turns], new_tokens, draws)[0]

    def likeliest_answers(self, asked: Sequence[Turns], new_tokens: int) -> list[str]:
        """What the assistant says to each of these, every token the likeliest. Raises what `answer` does.

        Args:
            asked: turns that end with the user's.
            new_tokens: at most so many each.
        """
        parts = (asked[start : start + AT_ONCE] for start in range(0, len(asked), AT_ONCE))
        return [text for part in parts for text in self._written(part, new_tokens, [])]

    @torch.no_grad()
    def _written(self, asked: Sequence[Turns], new_tokens: int, draws: Sequence[KeyedDraws]) -> list[str]:
        """Answers that are written together; takes and raises what `answer` does."""
        from transformers import GenerationConfig, LogitsProcessorList

        template = self.template
        prompts = [template.prompt(turns) for turns in asked]
        longest = max(map(len, prompts))
        places = getattr(self.network.config, "max_position_embeddings", None)
        if places is not None and longest >= places:
            got = f"a prompt of {longest} tokens"
            raise Refused("evaluation.prompts", got, f"less than {places}, the base's positions")
        if places is not None and len(asked) > 1 and longest + new_tokens > places:
            # the longest prompt shortens no answer but its own
            return [text for turns in asked for text in self._written([turns], new_tokens, draws)]
        ends = self.network.generation_config.eos_token_id
        own = [] if ends is None else ends if isinstance(ends, list) else [ends]
        config = GenerationConfig(
            max_new_tokens=new_tokens if places is None else min(new_tokens, places - longest),
            do_sample=False,
            eos_token_id=sorted({*own, *template.end_ids}) or None,
            pad_token_id=template.padding,
            stop_strings=template.end_text,
        )
        # what is written stands behind every prompt at the same place
        padded = [[template.padding] * (longest - len(ids)) + ids for ids in prompts]
        seen = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
        with self.evaluating(), self.autocast():  # type: ignore[attr-defined]
            written = self.network.generate(
                torch.tensor(padded, device=self.device),
                attention_mask=torch.tensor(seen, device=self.device),
                generation_config=config,
                logits_processor=LogitsProcessorList(draws),
                tokenizer=template.tokenizer,
            )
        texts = template.tokenizer.batch_decode(written[:, longest:], skip_special_tokens=True)
        if template.end_text:
            texts = [text.partition(template.turn_end)[0] for text in texts]  # padding stands behind it
        return [text.strip() for text in texts]
