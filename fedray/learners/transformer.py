"""transformer: BERT, GPT-2 or ViT as transformers builds them, in stages that are their own modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedray.data import DatasetInfo, Samples
from fedray.data.tokenizer import MASK
from fedray.learners.classifier import LabelledImages
from fedray.learners.contexts import EvaluationContext, LearnerContext, Sampling
from fedray.learners.learner import Learner
from fedray.learners.losses import cross_entropy, weighted_mean
from fedray.learners.pictures import ImageShard, scaled
from fedray.learners.stages import Stage, inputs, run
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
    weight: Tensor | None = None  # [b], of each sample in the loss

    @property
    def judged(self) -> int:
        """What the loss is divided by: how many tokens something is asked of, and at least 1."""
        return max(1, int((self.targets != UNJUDGED).sum()))


@dataclass
class Masked:
    """One step's inputs of images to be completed."""

    images: Tensor  # [b, c, h, w] in -1..1
    masks: Tensor  # [b, patches] bool, true where hidden
    weight: Tensor | None = None  # [b], of each sample in the loss


Batch = Tokens | LabelledImages | Masked


class Transformer(Learner):
    def __init__(self, section: Section, context: LearnerContext) -> None:
        super().__init__(section, context)
        if section.of_text:
            self.size = 0
        else:
            self.refuse_no_size()
            if self.size % section.patch or self.size == section.patch:
                raise Refused(
                    "model.patch", section.patch, f"a proper divisor of the images' {self.size} pixels a side"
                )
        self.side = self.size // section.patch  # in patches
        self.network: Any = build(section, context.dataset, self.size)
        self.parts = {"network": self.network}
        self.stages = self.staged(_pieces(section, self.network, self.side), _loss(section, self.side))

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        super().prepare_training(gradient_checkpointing)
        if gradient_checkpointing:
            self.network.gradient_checkpointing_enable({"use_reentrant": False})

    def encode(self, samples: Samples, indices: np.ndarray) -> Tensor | ImageShard:
        """Tokens [n, l] int64, or images."""
        if not self.section.of_text:
            return super().encode(samples, indices)
        return torch.from_numpy(samples.tokens(indices)).to(self.device)

    def draw(self, shard: Tensor | ImageShard, indices: np.ndarray, generator: torch.Generator) -> Batch:
        i = torch.from_numpy(indices).to(self.device)
        if isinstance(shard, ImageShard):
            images = scaled(shard.images[i])
            if self.section.objective == "classification":
                return LabelledImages(images, shard.labels[i])
            return Masked(
                images, some(len(i), self.side**2, self.section.masked or 0.5, generator).to(self.device)
            )
        tokens = shard[i]
        if self.section.objective == "causal_language":
            return Tokens(tokens, F.pad(tokens[:, 1:], (0, 1), value=UNJUDGED))
        return self._masked(tokens, generator)

    def counted(self, batch: Batch, samples: int) -> float:
        return float(batch.judged if isinstance(batch, Tokens) else samples)

    def _masked(self, tokens: Tensor, generator: torch.Generator) -> Tokens:
        """Of the tokens that are asked for, 80% are masked, 10% others and 10% themselves (Devlin et al.
        2019, Sec. 3.1)."""
        judged = some(len(tokens), tokens.shape[1], self.section.masked or 0.15, generator)
        lot = torch.rand(tokens.shape, generator=generator)
        others = torch.randint(1, self.network.config.vocab_size, tokens.shape, generator=generator)
        given = others.where(lot >= 0.8, torch.tensor(0)).to(self.device)  # 0: [MASK]
        changed = (judged & (lot < 0.9)).to(self.device)
        return Tokens(given.where(changed, tokens), tokens.where(judged.to(self.device), UNJUDGED))

    def blank_shard(self, n: int) -> Any:
        if not self.section.of_text:
            return super().blank_shard(n)
        return torch.zeros(n, self.context.dataset.length, dtype=torch.long, device=self.device)

    def blank_batch(self) -> tuple[Batch, int]:
        return self.draw(self.blank_shard(1), np.arange(1), torch.Generator()), 1

    def evaluate(self, context: EvaluationContext) -> dict[str, float]:
        """Of text, perplexity too."""
        metrics = super().evaluate(context)
        if self.section.of_text:
            metrics["eval_perplexity"] = float(np.exp(metrics["eval_loss"]))
        return metrics

    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, float]:
        """Loss, and accuracy where there is one; of images that are classified, on how many."""
        accuracy, loss = self.test(samples, indices)
        metrics = {"eval_loss": loss}
        if accuracy is not None:
            metrics["eval_accuracy"] = accuracy
            if not self.section.of_text:  # of text it is a share of tokens, which are not drawn one by one
                metrics["eval_samples"] = float(len(indices))
        return metrics

    @torch.no_grad()
    def test(self, samples: Samples, chosen: np.ndarray) -> tuple[float | None, float]:
        """Accuracy (of images to be completed, none) and mean loss over these samples of a test set, under
        the same masks each time. Every sample has as much to judge as any other, so that means of batches
        weigh as their samples."""
        generator = torch.Generator().manual_seed(key(self.context.seed, 0, SERVER, "test masks"))
        right = judged = 0
        loss = 0.0
        with self.evaluating():
            for start in range(0, len(chosen), CHUNK):
                part = chosen[start : start + CHUNK]
                batch = self.draw(self.encode(samples, part), np.arange(len(part)), generator)
                known = run(self.stages, inputs(batch))
                loss += float(known["loss"]) * len(part)
                if not isinstance(batch, Masked):
                    targets = batch.targets if isinstance(batch, Tokens) else batch.labels
                    right += int((known["x"].argmax(-1) == targets).sum())
                    judged += int((targets != UNJUDGED).sum())
        return right / judged if judged else None, loss / len(chosen)

    @torch.no_grad()
    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> list[str]:
        """Each prompt with what a causal model writes after it, a token at a time, each text from draws of
        its own seed. The model sees as many tokens at the end as a sample has."""
        dataset = self.context.dataset
        texts = []
        tokenizer = dataset.tokenizer
        assert tokenizer is not None
        with self.evaluating(), self.autocast():
            for prompt, seed in zip(prompts, seeds, strict=True):
                tokens = tokenizer.encode(prompt or "\n").ids
                draws = torch.Generator().manual_seed(seed)
                for _ in range(sampling.new_tokens):
                    seen = torch.tensor([tokens[-dataset.length :]], device=self.device)
                    logits = self.network(seen).logits[0, -1].float().cpu()
                    logits[0] = -torch.inf  # [MASK]
                    shares = (logits / sampling.temperature).softmax(0)
                    tokens.append(int(torch.multinomial(shares, 1, generator=draws)))
                texts.append(tokenizer.decode(tokens))
        return texts

    def save(self, folder: Path) -> None:
        """What `from_pretrained` reads: the network, and of text its tokenizer."""
        from transformers import PreTrainedTokenizerFast
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.network.save_pretrained(folder)
        if (tokenizer := self.context.dataset.tokenizer) is not None:
            fast: Any = PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, mask_token=MASK, model_max_length=self.context.dataset.length
            )
            fast.save_pretrained(folder)

    @classmethod
    def exported_dataset(cls, section: Section, folder: Path) -> DatasetInfo | None:
        """Of text: its tokenizer, and how many tokens a sample has."""
        from tokenizers import Tokenizer
        from transformers import AutoConfig

        if not section.of_text:
            return None
        file = folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as e:  # tokenizers raises no other
            raise ValueError(f"{file}: got {e}, expected the run's tokenizer") from None
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        return DatasetInfo(0, None, (), config.max_position_embeddings, tokenizer)


def some(n: int, length: int, share: float, generator: torch.Generator) -> Tensor:
    """[n, length] bool: in each row the same number chosen, at least one and not all, the nearest to its
    share.

    Args:
        n: rows.
        length: of a row.
        share: that is chosen, 0 to 1.
        generator: of the draw.
    """
    number = min(max(1, round(share * length)), length - 1)
    chosen = torch.rand(n, length, generator=generator).argsort(1)[:, :number]
    return torch.zeros(n, length, dtype=torch.bool).scatter_(1, chosen, True)


def build(section: Section, dataset: DatasetInfo, size: int) -> Any:
    """Weights from torch's generator. Head and word embeddings are not tied, so that a cut may lie between
    them; nor is BERT's second name of its head's bias, which then nothing reads, and which stays zero."""
    import transformers as hf

    p = section.dropout
    common: dict[str, Any] = {
        "hidden_size": section.width,
        "num_hidden_layers": section.layers,
        "num_attention_heads": section.heads,
        "attn_implementation": "sdpa",  # which makes GPT-2 causal without a mask
    }
    rest: dict[str, Any] = {
        "intermediate_size": 4 * section.width,
        "hidden_dropout_prob": p,
        "attention_probs_dropout_prob": p,
    }
    if section.of_text:
        assert dataset.tokenizer is not None
        common |= {
            "vocab_size": dataset.tokenizer.get_vocab_size(),
            "max_position_embeddings": dataset.length,
            "tie_word_embeddings": False,
        }
        common |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))  # there are none
    else:
        common |= {"image_size": size, "patch_size": section.patch, "num_channels": dataset.channels}
    if section.objective == "masked_language":
        return hf.BertForMaskedLM(hf.BertConfig(**common, **rest, type_vocab_size=1))
    if section.objective == "causal_language":
        return hf.GPT2LMHeadModel(hf.GPT2Config(**common, resid_pdrop=p, embd_pdrop=p, attn_pdrop=p))
    config = hf.ViTConfig(
        **common, **rest, encoder_stride=section.patch, id2label=dict(enumerate(dataset.label_names))
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
        layers = body.encoder.layer
        last = stage("head", network.cls, network.cls)
    elif section.objective == "causal_language":
        first = stage("embed", words_and_places, body.wte, body.wpe, needs=("tokens",))
        layers = body.h
        last = stage("head", lambda x: network.lm_head(body.ln_f(x)), body.ln_f, network.lm_head)
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
        layers = body.layers
        last = stage("head", picture, body.layernorm, network.decoder)
    return [first, *(stage(f"layer_{i}", layer, layer) for i, layer in enumerate(layers)), last]


def _loss(section: Section, side: int) -> Stage:
    """Mean cross entropy of what is asked for, or mean absolute error of the pixels that were hidden. Equal
    to transformers' own."""

    def hidden_error(x: Tensor, images: Tensor, masks: Tensor, weight: Tensor | None = None) -> Tensor:
        """In every image equally many pixels are hidden.

        Args:
            x: predicted images [b, c, h, w].
            images: the real ones [b, c, h, w].
            masks: the patches that are hidden [b, patches].
            weight: of each sample [b]; None: all the same.
        """
        grid = masks.unflatten(1, (1, side, side))
        hidden = grid.repeat_interleave(section.patch, 2).repeat_interleave(section.patch, 3)
        error = (x.float() - images).abs() * hidden
        if weight is None:
            return error.sum() / (hidden.sum() * images.shape[1])
        pixels = hidden.flatten(1).sum(1) * images.shape[1]
        return weighted_mean(error.flatten(1).sum(1) / pixels, weight)

    if section.objective == "masked_image":
        return Stage("loss", ("x", "images", "masks"), ("loss",), hidden_error, optional=("weight",))
    targets = "targets" if section.of_text else "labels"
    return Stage("loss", ("x", targets), ("loss",), cross_entropy, optional=("weight",))
