"""Byte-pair encoding (Sennrich et al. 2016), learned by Hugging Face's `tokenizers`.

Merges depend on the texts only through how often pairs of tokens stand side by side, and such counts add up
over texts. Clients can therefore agree on exactly these merges by sending counts of pairs and no text;
tests/data/pair_counts.py does it, as the reference that this module is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedray.scenario.base import Refused

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MASK = "[MASK]"  # token 0


def train(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """A byte-level tokenizer like GPT-2's, which can encode every text and loses nothing.

    Args:
        texts: what the merges are learned from; no merge crosses GPT-2's word boundaries, and of equally
            frequent pairs the one with the lowest token ids is merged first.
        vocabulary: how many tokens there are: [MASK], 256 bytes, and merged pairs. 0: no merged pairs.

    Raises:
        Refused: where the texts have too few pairs to merge.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary or 1 + len(alphabet),
        special_tokens=[MASK],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    # bytes alone need no text read
    tokenizer.train_from_iterator(texts if vocabulary else (), trainer)
    size = tokenizer.get_vocab_size()
    if size < vocabulary:
        expected = f"at most {size}: these texts have no more pairs to merge"
        raise Refused("data.tokenizer.vocabulary", vocabulary, expected)
    tokenizer.encode_special_tokens = True  # a text that says "[MASK]" is encoded as these bytes
    return tokenizer
