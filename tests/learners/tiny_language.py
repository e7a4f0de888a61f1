"""Language models of a few thousand numbers with a tokenizer of their own, and conversations of four
clients."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

from fedray.data.conversations import Conversations, Message
from tests.helpers import quickstart, write

WORDS = ("red", "blue", "green", "white")
CHATML = (Path(__file__).parents[2] / "fedray" / "shipped" / "chatml.jinja").read_text()
PLAIN = (  # the same without marks
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SOURCE = '''
from typing import ClassVar

import numpy as np

import fedray
from fedray.data.conversations import Conversations, Message

WORDS = ("red", "blue", "green", "white")


class Colours(fedray.Source):
    """Asks for a colour and its length; a client a colour."""

    class Section(fedray.Source.Section):
        has_conversations: ClassVar[bool] = True
        each: int = 4

    def open(self, split):
        n = self.section.each if split == "train" else 1
        asked = [(word, i) for word in WORDS for i in range(n)]
        return Conversations(
            [
                (
                    Message("user", f"say {word} " + "please " * i),
                    Message("assistant", " ".join([word] * (i + 1))),
                )
                for word, i in asked
            ],
            np.array([WORDS.index(word) for word, _ in asked]),
            WORDS,
            [word for word, _ in asked],
        )
'''
TREE: dict[str, Any] = {
    "name": "colours",
    "seed": 0,
    "topology": {"kind": "parallel"},
    "population": {"clients": 4, "per_round": 4},
    "data": {"kind": "colours:Colours", "partition": {"kind": "folder"}},
    "model": {"kind": "language_model", "base": "base", "max_length": 48},
    "tuning": {"kind": "lora", "rank": 2, "alpha": 4},
    "training": {
        "rounds": 2,
        "local_steps": 2,
        "batch_size": 2,
        "optimizer": {"kind": "adamw", "learning_rate": 0.01},
    },
    "evaluation": {},
    "runtime": {"executor": "serial"},
}
SIZES = {
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
    },
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
}


@cache
def tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw: Any = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|im_start|>", "<|im_end|>"]
    trainer: Any = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([f"say {word} please user assistant" for word in WORDS], trainer)
    made: Any = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<pad>")
    return made


def network(kind: str, **changes: Any) -> Any:
    """With weights from a seed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = SIZES.get(kind, SIZES["llama"])
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer()),
        eos_token_id=2,
        bos_token_id=None,
        pad_token_id=0,
        **(sizes | changes),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return AutoModelForCausalLM.from_config(config).eval()


def base(folder: Path, kind: str = "llama", template: str | None = CHATML, **changes: Any) -> Path:
    """A base model's folder."""
    made = network(kind, **changes)
    made.save_pretrained(folder)
    own = copy.deepcopy(tokenizer())
    own.chat_template = template
    own.save_pretrained(folder)
    return folder


def scenario(folder: Path, changes: dict[str, Any] | None = None, kind: str = "llama", **config: Any) -> Path:
    """Four clients, each with a colour of its own."""
    if not (folder / "base").exists():
        base(folder / "base", kind, **config)
    (folder / "colours.py").write_text(SOURCE)
    tree = copy.deepcopy(TREE) | {"network": quickstart()["network"]}
    return write(folder / "colours.yaml", changes or {}, tree)


def conversations(*turns: list[tuple[str, str]]) -> Conversations:
    """Samples of these turns."""
    import numpy as np

    made = [tuple(Message(*turn) for turn in each) for each in turns]
    return Conversations(made, np.zeros(len(made), np.int64), ["all"], [""] * len(made))
