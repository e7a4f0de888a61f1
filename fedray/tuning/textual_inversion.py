"""Textual inversion (Gal et al. 2023): a new token's rows in the text encoders' tables."""

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from fedray.learners.base_texts import initializer_id, pieces, refuse_many_vectors, refuse_without_clips
from fedray.learners.families.family import Family
from fedray.learners.families.new_tokens import NewRows
from fedray.learners.learner import Learner
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
        files = family.files
        refuse_without_clips(self.section, files)
        chosen = {}
        for clip, (name, part) in zip(files.clips, files.tokenizers.items(), strict=False):
            encoder = family.parts[part]
            table = encoder.get_input_embeddings()
            refuse_many_vectors(self.section, int(encoder.config.max_position_embeddings))
            if family.tokenizers:
                tokenizer = family.tokenizers[name]
                start = initializer_id(self.section, tokenizer)
                first = len(tokenizer)
                tokenizer.add_tokens(pieces(self.section.token, self.section.vectors))
            else:  # counted without a tokenizer: rows alone
                first = table.num_embeddings
                start = 0
            rows = table.weight[start].detach().float().repeat(self.section.vectors, 1)
            module = NewRows(table, first, rows)
            encoder.set_input_embeddings(module)
            chosen[clip if len(files.clips) > 1 else self.section.token] = module.rows
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
        names = family.files.clips if len(rows) > 1 else ("emb_params",)
        return files | {f"{token.strip('<>')}.safetensors": dict(zip(names, rows, strict=True))}


def _family(learner: Learner) -> Family:
    family: Family = cast(Any, learner).family
    return family
