"""Byte-pair encoding (Sennrich et al. 2016) of texts that their owners keep: the server sees counts of pairs,
no text.

Each owner counts which tokens stand side by side in its own text. For every merge the server adds up the
counts, names the most frequent pair (of equals, that of the lowest ids), and each owner merges it and tells
how its counts changed. The merges are exactly those of all texts together, since these counts are sums.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from fedray.scenario.base import Refused

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MASK = "[MASK]"  # token 0
Pair = tuple[int, int]


class Owner:
    """One text's distinct words, which stay here, and how often each occurs. Words are GPT-2's: no merge goes
    across them."""

    def __init__(self, words: Iterable[Sequence[int]]) -> None:
        counted = Counter(map(tuple, words))
        self._words, self._times = [list(word) for word in counted], list(counted.values())
        self._having: dict[Pair, set[int]] = defaultdict(set)  # words, by the pairs in them

    def counts(self) -> dict[Pair, int]:
        """How often each pair of neighbours occurs: the first thing that is told."""
        return self._recount(range(len(self._words)), None)

    def merge(self, pair: Pair, new: int) -> dict[Pair, int]:
        """Makes one token of a pair, and tells by how much that changed the counts."""
        return self._recount(self._having.pop(pair, ()), (pair, new))

    def _recount(self, places: Iterable[int], merged: tuple[Pair, int] | None) -> dict[Pair, int]:
        changes: dict[Pair, int] = defaultdict(int)
        for i in places:
            word, times = self._words[i], self._times[i]
            if merged is not None:
                for pair in pairwise(word):
                    changes[pair] -= times
                _replace(word, *merged)
            for pair in pairwise(word):
                changes[pair] += times
                self._having[pair].add(i)
        return changes


def _replace(word: list[int], pair: Pair, new: int) -> None:
    """From left to right."""
    i = 0
    while i < len(word) - 1:
        if (word[i], word[i + 1]) == pair:
            word[i : i + 2] = [new]
        i += 1


def agree(owners: Sequence[Owner], tokens: list[str], vocabulary: int) -> list[tuple[str, str]]:
    """The server's part: appends to `tokens` until there are as many as asked for, and gives the merges in
    their order.

    Raises:
        Refused: where nothing is left to merge before.
    """
    known = {token: i for i, token in enumerate(tokens)}
    total: dict[Pair, int] = defaultdict(int)
    queue: list[tuple[int, Pair]] = []  # counts below 0, so that the most frequent comes first
    merges: dict[Pair, None] = {}
    changes = [owner.counts() for owner in owners]
    while len(tokens) < vocabulary:
        for pair, change in (item for told in changes for item in told.items()):
            total[pair] += change
        for pair in {pair for told in changes for pair in told if total[pair]}:
            heapq.heappush(queue, (-total[pair], pair))
        while queue and -queue[0][0] != total[queue[0][1]]:  # a count of before
            heapq.heappop(queue)
        if not queue:
            raise Refused(
                "data.tokenizer.vocabulary",
                vocabulary,
                f"at most {len(tokens)}: these texts have no more pairs to merge",
            )
        a, b = pair = heapq.heappop(queue)[1]
        if (token := tokens[a] + tokens[b]) not in known:  # two ways may lead to one token
            known[token] = len(tokens)
            tokens.append(token)
        merges[pair] = None
        changes = [owner.merge(pair, known[token]) for owner in owners]
    return [(tokens[a], tokens[b]) for a, b in merges]


def train(texts: Sequence[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of [MASK], 256 bytes, and what the texts' owners agree on beyond: byte-level as GPT-2's, so
    that it loses nothing and knows every text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens = [MASK, *sorted(bytewise.alphabet())]
    merges: list[tuple[str, str]] = []
    if vocabulary > len(tokens):
        ids = {token: i for i, token in enumerate(tokens)}
        owners = [
            Owner([ids[c] for c in word] for word, _ in bytewise.pre_tokenize_str(text)) for text in texts
        ]
        merges = agree(owners, tokens, vocabulary)
    found = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    found.pre_tokenizer, found.decoder = bytewise, decoders.ByteLevel()
    found.add_special_tokens([AddedToken(MASK, special=True)])
    found.encode_special_tokens = True  # a text that says "[MASK]" says so in bytes
    return found
