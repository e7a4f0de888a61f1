"""Byte pairs that the owners of texts agree on by counts alone: the reference for `fedray.data.tokenizer`.

Each owner counts which tokens stand side by side in its own text. For every merge the server adds up the
counts and names the most frequent pair (of equals, that of the lowest ids); each owner merges it and sends
how its counts changed.

No token arises in two ways: wherever letters end as one token, no merge has crossed the first's or the
last's border, so they were merged by the same merges at the same time.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from fedray.data.tokenizer import MASK

Pair = tuple[int, int]


class Owner:
    """One text's distinct words, which stay here, and how often each occurs."""

    def __init__(self, words: Iterable[Sequence[int]]) -> None:
        self._words = [(list(word), times) for word, times in Counter(map(tuple, words)).items()]
        self._words_with: dict[Pair, set[int]] = defaultdict(set)

    def counts(self) -> dict[Pair, int]:
        """How often each pair of neighbours occurs."""
        return self._recount(range(len(self._words)), None)

    def merge(self, pair: Pair, new: int) -> dict[Pair, int]:
        """Makes one token of a pair and returns by how much that changed the counts."""
        return self._recount(self._words_with.pop(pair, ()), (pair, new))

    def _recount(self, places: Iterable[int], merged: tuple[Pair, int] | None) -> dict[Pair, int]:
        changes: dict[Pair, int] = defaultdict(int)
        for i in places:
            word, times = self._words[i]
            if merged is not None:
                for pair in pairwise(word):
                    changes[pair] -= times
                replace(word, *merged)
            for pair in pairwise(word):
                changes[pair] += times
                self._words_with[pair].add(i)
        return changes


def replace(word: list[int], pair: Pair, new: int) -> None:
    """Merges a pair wherever it stands in a word, from left to right."""
    i = 0
    while i < len(word) - 1:
        if (word[i], word[i + 1]) == pair:
            word[i : i + 2] = [new]
        i += 1


def agree(owners: Sequence[Owner], tokens: list[str], vocabulary: int) -> list[tuple[str, str]] | None:
    """The server's part: appends to `tokens` until there are as many as asked for, and returns the merges in
    their order; None where nothing is left to merge before."""
    total: dict[Pair, int] = defaultdict(int)
    merges: list[tuple[str, str]] = []
    changes = [owner.counts() for owner in owners]
    while len(tokens) < vocabulary:
        for pair, change in (item for message in changes for item in message.items()):
            total[pair] += change
        if not any(total.values()):
            return None
        a, b = pair = min(total, key=lambda pair: (-total[pair], pair))
        merges.append((tokens[a], tokens[b]))
        tokens.append(tokens[a] + tokens[b])
        changes = [owner.merge(pair, len(tokens) - 1) for owner in owners]
    return merges


def reference(texts: Sequence[str], vocabulary: int) -> Tokenizer | int:
    """A tokenizer of [MASK], 256 bytes and what the owners of the texts agree on beyond; where they have too
    few pairs, how many tokens there can be."""
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens = [MASK, *sorted(bytewise.alphabet())]
    ids = {token: i for i, token in enumerate(tokens)}
    owners = [Owner([ids[c] for c in word] for word, _ in bytewise.pre_tokenize_str(text)) for text in texts]
    merges = agree(owners, tokens, vocabulary)
    if merges is None:
        return len(tokens)
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = bytewise
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(MASK, special=True)])
    tokenizer.encode_special_tokens = True
    return tokenizer
