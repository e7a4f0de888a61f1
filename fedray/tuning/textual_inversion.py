"""Textual inversion (Gal et al. 2023): a new token's rows in the text encoders' tables."""

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from fedray.learners.families.family import Family
from fedray.learners.families.new_tokens import NewRows, pieces
from fedray.learners.learner import Learner
from fedray.scenario.base import Refused
from fedray.transport.buffer import Layout, safetensors_bytes
from fedray.tuning.tuning import Tuning

DIFFUSERS_FILES = ("learned_embeds.safetensors", "learned_embeds_2.safetensors")  # one a text encoder


class TextualInversionTuning(Tuning):
    """New rows beside the table of each CLIP: only they train and travel."""

    def select(self, learner: Learner) -> dict[str, nn.Parameter]:
        """Puts the new rows beside the tables, and the tokens into the tokenizers.

        Raises:
            Refused: for a family without CLIP, more vectors than a text has room for, a token that the
                vocabulary has, and an initializer that is not one token of it.
        """
        family = _family(learner)
        if not family.clips:
            expected = "a tuning of other kind, or a base model with CLIP as text encoder"
            raise Refused("tuning.kind", f"{self.section.kind} for {family.files.pipeline}", expected)
        chosen = {}
        tokenizers = family.files.tokenizers
        for clip, (tokenizer, part) in zip(family.clips, tokenizers.items(), strict=False):
            encoder = family.parts[part]
            table = encoder.get_input_embeddings()
            self._refuse_long(int(encoder.config.max_position_embeddings))
            if family.tokenizers:
                first, start = self._add_tokens(family.tokenizers[tokenizer])
            else:  # counted without a tokenizer: rows alone
                first = table.num_embeddings
                start = 0
            rows = table.weight[start].detach().float().repeat(self.section.vectors, 1)
            module = NewRows(table, first, rows)
            encoder.set_input_embeddings(module)
            chosen[clip if len(family.clips) > 1 else self.section.token] = module.rows
        family.named = self.section.named
        return chosen

    def export(self, learner: Learner, layout: Layout, folder: Path, adapter: bool = True) -> None:
        """The new rows' own files, and the whole pipeline with its tables enlarged.

        Args:
            learner: with its new rows, which are part of the tables afterwards.
            layout: of what travels.
            folder: where the files go.
            adapter: whether the rows' own files are written, too.
        """
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        for file, tensors in self._files(learner, layout).items() if adapter else ():
            save_file(tensors, str(folder / file), metadata={"format": "pt"})
        for encoder in _family(learner).text_encoders:
            module = encoder.get_input_embeddings()
            if isinstance(module, NewRows):
                table = module.folded()
                encoder.set_input_embeddings(table)
                encoder.config.vocab_size = table.num_embeddings
        learner.save(folder)

    def export_files(self, learner: Learner, layout: Layout) -> dict[str, int]:
        return {
            file: safetensors_bytes({n: (layout.precision, list(t.shape)) for n, t in tensors.items()})
            for file, tensors in self._files(learner, layout).items()
        }

    def _files(self, learner: Learner, layout: Layout) -> dict[str, dict[str, Tensor]]:
        """The rows by file: diffusers', one a text encoder, and one for ComfyUI and A1111, where its name is
        what prompts contain."""
        family = _family(learner)
        modules = [encoder.get_input_embeddings() for encoder in family.text_encoders]
        rows = [m.rows.detach().to(layout.dtype) for m in modules if isinstance(m, NewRows)]
        if learner.device.type != "meta":
            rows = [r.cpu().contiguous() for r in rows]
        token = self.section.token
        files = {file: {token: r} for file, r in zip(DIFFUSERS_FILES, rows, strict=False)}
        names = family.clips if len(rows) > 1 else ("emb_params",)
        return files | {f"{token.strip('<>')}.safetensors": dict(zip(names, rows, strict=True))}

    def _refuse_long(self, places: int) -> None:
        if self.section.vectors > places - 2:
            expected = f"at most {places - 2}: the text encoder reads {places} tokens, two of them its own"
            raise Refused("tuning.vectors", self.section.vectors, expected)

    def _add_tokens(self, tokenizer: Any) -> tuple[int, int]:
        """The ids of the first new token, and of the initializer."""
        names = pieces(self.section.token, self.section.vectors)
        vocabulary = tokenizer.get_vocab()
        if known := [name for name in names if name in vocabulary]:
            raise Refused("tuning.token", known[0], "a token that the base model does not know")
        ids = tokenizer.encode(self.section.initializer, add_special_tokens=False)
        if len(ids) != 1:
            got = f"{self.section.initializer!r}, which is {len(ids)} tokens"
            raise Refused("tuning.initializer", got, "a word that is one token of the base model")
        first = len(tokenizer)
        tokenizer.add_tokens(names)
        return first, int(ids[0])


def _family(learner: Learner) -> Family:
    family: Family = cast(Any, learner).family
    return family
