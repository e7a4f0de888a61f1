"""New tokens of a text encoder: their rows beside its table, and their names in its tokenizer."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedray.learners.base_texts import pieces


class NewRows(nn.Module):
    """Looks up in a frozen table, and in new rows behind it. Only the rows train.

    Args:
        table: of the text encoder, [n, d].
        first: the id of the first new token, at most n; rows of the table from there on have no token.
        rows: [v, d].
    """

    def __init__(self, table: nn.Embedding, first: int, rows: Tensor) -> None:
        super().__init__()
        self.table = table
        self.first = first
        self.rows = nn.Parameter(rows)

    def forward(self, ids: Tensor) -> Tensor:
        """[b, l, d] of token ids [b, l], as cat(table, rows) would give, which is too large to be copied each
        step."""
        old = self.table(ids.clamp(max=self.first - 1))
        new = F.embedding((ids - self.first).clamp(min=0), self.rows.to(old.dtype))
        return torch.where((ids >= self.first)[..., None], new, old)

    def folded(self) -> nn.Embedding:
        """One table of all rows."""
        with torch.no_grad():
            known = self.table.weight[: self.first]
            rows = torch.cat([known, self.rows.to(known)])
        return nn.Embedding.from_pretrained(rows)


def expanded(texts: Sequence[str], tokenizer: Any) -> list[str]:
    """Texts with all pieces of a token of several vectors where they have the token alone, as diffusers'
    pipelines make them of prompts."""
    added = tokenizer.added_tokens_encoder
    out = list(texts)
    for token in added:
        if f"{token}_1" not in added:
            continue
        vectors = 1
        while f"{token}_{vectors}" in added:
            vectors += 1
        spelled = " ".join(pieces(token, vectors))
        out = [re.sub(re.escape(token) + r"(?!_\d)", spelled, text) for text in out]
    return out
