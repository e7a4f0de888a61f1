"""transformer: BERT, GPT-2 or ViT as transformers builds them, in stages that are their own modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedray.data import Form, Samples
from fedray.data.text import Texts
from fedray.data.tokenizer import MASK
from fedray.learners.classifier import Batch as Labelled
from fedray.learners.learner import Learner
from fedray.learners.pictures import Shard, scaled
from fedray.learners.stages import Stage, run
from fedray.randomness import SERVER, key
from fedray.scenario.base import Refused
from fedray.scenario.model import Transformer as Section

CHUNK = 64  # samples of a test set that are judged in one go: of text, each has length x vocabulary logits
UNJUDGED = -100  # where a target is none, as in transformers


@dataclass
class Tokens:
    """One step's inputs of text, every draw made. b samples of l tokens."""

    tokens: Tensor  # [b, l] int64, some masked
    targets: Tensor  # [b, l] int64, UNJUDGED where nothing is asked


@dataclass
class Masked:
    """One step's inputs of images to be completed."""

    images: Tensor  # [b, c, h, w] in -1..1
    masks: Tensor  # [b, patches] bool, true where hidden


Batch = Tokens | Labelled | Masked


class Transformer(Learner):
    def __init__(
        self, section: Section, form: Form, seed: int, device: torch.device, compute: torch.dtype
    ) -> None:
        self.section, self.form, self.seed, self.device, self.compute = section, form, seed, device, compute
        self.size = section.resolution or form.size or 0
        if not section.of_text and not self.size:
            raise Refused(
                "model.resolution", "nothing", "pixels a side, since these images have no size of their own"
            )
        if not section.of_text and (self.size % section.patch or self.size == section.patch):
            raise Refused(
                "model.patch", section.patch, f"a proper divisor of the images' {self.size} pixels a side"
            )
        self.side = self.size // section.patch  # in patches
        with (
            torch.random.fork_rng(devices=[]),
            torch.device("meta") if device.type == "meta" else nullcontext(),
        ):
            torch.manual_seed(key(seed, 0, SERVER, "weights"))
            network = build(section, form, self.size)
        self.network: Any = network.to(device).requires_grad_(False)
        self.parts: dict[str, nn.Module] = {"network": self.network}
        self.stages = self.staged(_pieces(section, network, self.side), _loss(section, self.side))

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        super().prepare_training(gradient_checkpointing)
        if gradient_checkpointing:
            self.network.gradient_checkpointing_enable({"use_reentrant": False})

    def encode(self, samples: Samples, indices: np.ndarray) -> Tensor | Shard:
        """Tokens [n, l] int64, or images."""
        if not self.section.of_text:
            return super().encode(samples, indices)
        assert isinstance(samples, Texts)
        return torch.from_numpy(samples.tokens(indices)).to(self.device)

    def draw(self, shard: Tensor | Shard, indices: np.ndarray, generator: torch.Generator) -> Batch:
        i = torch.from_numpy(indices).to(self.device)
        if isinstance(shard, Shard):
            images = scaled(shard.images[i])
            if self.section.objective == "classification":
                return Labelled(images, shard.labels[i])
            return Masked(
                images, some(len(i), self.side**2, self.section.masked or 0.5, generator).to(self.device)
            )
        tokens = shard[i]
        if self.section.objective == "causal_language":
            return Tokens(tokens, F.pad(tokens[:, 1:], (0, 1), value=UNJUDGED))
        return self._masked(tokens, generator)

    def _masked(self, tokens: Tensor, generator: torch.Generator) -> Tokens:
        """Of the tokens that are asked for, 80% are masked, 10% others and 10% themselves (Devlin et al.
        2019, Sec. 3.1)."""
        judged = some(len(tokens), tokens.shape[1], self.section.masked or 0.15, generator)
        lot = torch.rand(tokens.shape, generator=generator)
        others = torch.randint(1, self.network.config.vocab_size, tokens.shape, generator=generator)
        given = others.where(lot >= 0.8, torch.tensor(0)).to(self.device)  # 0: [MASK]
        changed = (judged & (lot < 0.9)).to(self.device)
        return Tokens(given.where(changed, tokens), tokens.where(judged.to(self.device), UNJUDGED))

    def blank_batch(self) -> tuple[Batch, int]:
        if self.section.of_text:
            blank = torch.zeros(1, self.form.length, dtype=torch.long, device=self.device)
            return Tokens(blank, blank), 1
        images = torch.zeros(1, self.form.channels, self.size, self.size, device=self.device)
        if self.section.objective == "classification":
            return Labelled(images, torch.zeros(1, dtype=torch.long, device=self.device)), 1
        return Masked(images, torch.ones(1, self.side**2, dtype=torch.bool, device=self.device)), 1

    @torch.no_grad()
    def test(self, samples: Samples, chosen: np.ndarray) -> tuple[float | None, float]:
        """Accuracy (of images to be completed, none) and mean loss over these samples of a test set, under
        the same masks each time. Every sample has as much to judge as any other, so that means of batches
        weigh as their samples."""
        generator = torch.Generator().manual_seed(key(self.seed, 0, SERVER, "test masks"))
        right = judged = 0
        loss = 0.0
        with self.evaluating():
            for start in range(0, len(chosen), CHUNK):
                part = chosen[start : start + CHUNK]
                batch = self.draw(self.encode(samples, part), np.arange(len(part)), generator)
                known = run(self.stages, vars(batch))
                loss += float(known["loss"]) * len(part)
                if not isinstance(batch, Masked):
                    targets = batch.targets if isinstance(batch, Tokens) else batch.labels
                    right += int((known["x"].argmax(-1) == targets).sum())
                    judged += int((targets != UNJUDGED).sum())
        return right / judged if judged else None, loss / len(chosen)

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], new_tokens: int, temperature: float
    ) -> list[str]:
        """Each prompt with what a causal model writes after it, a token at a time, each text from draws of
        its own seed. The model sees as many tokens at the end as a sample has."""
        tokenizer, texts = self.form.tokenizer, []
        assert tokenizer is not None
        with self.evaluating(), self.autocast():
            for prompt, seed in zip(prompts, seeds, strict=True):
                tokens, draws = tokenizer.encode(prompt or "\n").ids, torch.Generator().manual_seed(seed)
                for _ in range(new_tokens):
                    seen = torch.tensor([tokens[-self.form.length :]], device=self.device)
                    logits = self.network(seen).logits[0, -1].float().cpu()
                    logits[0] = -torch.inf  # [MASK]
                    tokens.append(
                        int(torch.multinomial((logits / temperature).softmax(0), 1, generator=draws))
                    )
                texts.append(tokenizer.decode(tokens))
        return texts

    def save(self, folder: Path) -> None:
        """What `from_pretrained` reads: the network, and of text its tokenizer."""
        from transformers import PreTrainedTokenizerFast
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.network.save_pretrained(folder)
        if (tokenizer := self.form.tokenizer) is not None:
            fast: Any = PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, mask_token=MASK, model_max_length=self.form.length
            )
            fast.save_pretrained(folder)


def some(n: int, length: int, share: float, generator: torch.Generator) -> Tensor:
    """[n, length] bool: in each row the same number chosen, at least one and not all, the nearest to its
    share."""
    number = min(max(1, round(share * length)), length - 1)
    chosen = torch.rand(n, length, generator=generator).argsort(1)[:, :number]
    return torch.zeros(n, length, dtype=torch.bool).scatter_(1, chosen, True)


def build(section: Section, form: Form, size: int) -> Any:
    """Weights from torch's generator. Head and word embeddings are not tied, so that a cut may lie between
    them; nor is BERT's second name of its head's bias, which then nothing reads, and which stays zero."""
    import transformers as hf

    p, shape = (
        section.dropout,
        {
            "hidden_size": section.width,
            "num_hidden_layers": section.layers,
            "num_attention_heads": section.heads,
        },
    )
    # which makes GPT-2 causal without a mask
    common: dict[str, Any] = {**shape, "attn_implementation": "sdpa"}
    rest: dict[str, Any] = {
        "intermediate_size": 4 * section.width,
        "hidden_dropout_prob": p,
        "attention_probs_dropout_prob": p,
    }
    if section.of_text:
        assert form.tokenizer is not None
        common |= {
            "vocab_size": form.tokenizer.get_vocab_size(),
            "max_position_embeddings": form.length,
            "tie_word_embeddings": False,
        }
        common |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))  # there are none
    else:
        common |= {"image_size": size, "patch_size": section.patch, "num_channels": form.channels}
    if section.objective == "masked_language":
        return hf.BertForMaskedLM(hf.BertConfig(**common, **rest, type_vocab_size=1))
    if section.objective == "causal_language":
        return hf.GPT2LMHeadModel(hf.GPT2Config(**common, resid_pdrop=p, embd_pdrop=p, attn_pdrop=p))
    config = hf.ViTConfig(
        **common, **rest, encoder_stride=section.patch, id2label=dict(enumerate(form.label_names))
    )
    return (
        hf.ViTForImageClassification(config)
        if section.objective == "classification"
        else hf.ViTForMaskedImageModeling(config)
    )


def _pieces(section: Section, network: Any, side: int) -> list[Stage]:
    """embed, layer_0 and so on, head. Without padding nothing needs an attention mask."""
    body = network.base_model

    def stage(
        name: str, run: Callable[..., Any], *modules: nn.Module, needs: tuple[str, ...] = ("x",)
    ) -> Stage:
        return Stage(name, needs, ("x",), run, modules)

    def words_and_places(tokens: Tensor) -> Tensor:
        return body.drop(body.wte(tokens) + body.wpe(torch.arange(tokens.shape[1], device=tokens.device)))

    if section.objective == "masked_language":
        first = stage("embed", body.embeddings, body.embeddings, needs=("tokens",))
        layers, last = body.encoder.layer, stage("head", network.cls, network.cls)
    elif section.objective == "causal_language":
        first = stage("embed", words_and_places, body.wte, body.wpe, needs=("tokens",))
        layers, last = (
            body.h,
            stage("head", lambda x: network.lm_head(body.ln_f(x)), body.ln_f, network.lm_head),
        )
    elif section.objective == "classification":
        first = stage("embed", body.embeddings, body.embeddings, needs=("images",))
        layers = body.layers
        last = stage(
            "head", lambda x: network.classifier(body.layernorm(x)[:, 0]), body.layernorm, network.classifier
        )
    else:

        def picture(x: Tensor) -> Tensor:
            return network.decoder(body.layernorm(x)[:, 1:].transpose(1, 2).unflatten(2, (side, side)))

        first = stage("embed", body.embeddings, body.embeddings, needs=("images", "masks"))
        layers, last = body.layers, stage("head", picture, body.layernorm, network.decoder)
    return [first, *(stage(f"layer_{i}", layer, layer) for i, layer in enumerate(layers)), last]


def _loss(section: Section, side: int) -> Stage:
    """Mean cross entropy of what is asked for, or mean absolute error of the pixels that were hidden. Equal
    to transformers' own."""

    def cross_entropy(x: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(x.float().flatten(0, -2), targets.flatten(), ignore_index=UNJUDGED)

    def hidden_error(x: Tensor, images: Tensor, masks: Tensor) -> Tensor:
        hidden = (
            masks.unflatten(1, (1, side, side))
            .repeat_interleave(section.patch, 2)
            .repeat_interleave(section.patch, 3)
        )
        return ((x.float() - images).abs() * hidden).sum() / (hidden.sum() * images.shape[1])

    if section.objective == "masked_image":
        return Stage("loss", ("x", "images", "masks"), ("loss",), hidden_error)
    return Stage("loss", ("x", "targets" if section.of_text else "labels"), ("loss",), cross_entropy)
