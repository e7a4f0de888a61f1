"""The tokenizer in a base model's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedray.learners.base_files import Refuse, json_object, refuse_foreign

# Classes by the model_type of the text encoder that a tokenizer is for.
TOKENIZERS = {
    "clip_text_model": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "t5": ("T5Tokenizer", "T5TokenizerFast"),
}


def verify_tokenizer(folder: Path, text: Mapping[str, Any], refuse: Refuse) -> None:
    """That it can be read, and gives the text encoder no more than that knows."""
    if text.get("model_type") == "t5":
        _verify_t5(folder, text, refuse)
    else:
        _verify_clip(folder, text, refuse)


def _verify_t5(folder: Path, text: Mapping[str, Any], refuse: Refuse) -> None:
    """T5 places tokens relative to each other: it reads as many as it is given."""
    config = json_object(file, refuse) if (file := folder / "tokenizer_config.json").exists() else {}
    refuse_foreign(file, config, refuse)
    if (kind := config.get("tokenizer_class", "T5Tokenizer")) not in TOKENIZERS["t5"]:
        raise refuse(f"tokenizer_class {kind!r:.60} in {file}", "T5Tokenizer")
    if not (file := folder / "tokenizer.json").exists():
        if not (folder / "spiece.model").is_file():
            raise refuse(f"{folder} without a vocabulary", "tokenizer.json or spiece.model in it")
        return
    model = json_object(file, refuse).get("model")
    known = model.get("vocab") if isinstance(model, dict) else None
    size = text.get("vocab_size", 32128)
    if not isinstance(known, list) or not known:
        raise refuse(f"{file} without a vocabulary", "tokens with their scores")
    if not isinstance(size, int) or len(known) > size:
        raise refuse(f"{len(known)} tokens in {file}", f"at most {size!r:.40}, the text encoder's vocab_size")


def _verify_clip(folder: Path, text: Mapping[str, Any], refuse: Refuse) -> None:
    if not (folder / "tokenizer.json").exists():
        json_object(folder / "vocab.json", refuse)
    config = json_object(file, refuse) if (file := folder / "tokenizer_config.json").exists() else {}
    refuse_foreign(file, config, refuse)
    if (kind := config.get("tokenizer_class", "CLIPTokenizer")) not in TOKENIZERS["clip_text_model"]:
        raise refuse(f"tokenizer_class {kind!r:.60} in {file}", "CLIPTokenizer")
    longest = config.get("model_max_length")
    places = text.get("max_position_embeddings", 77)
    if (
        isinstance(longest, bool)
        or not isinstance(longest, int)
        or not isinstance(places, int)
        or not 0 < longest <= places
    ):
        raise refuse(
            f"model_max_length {longest!r:.40} in {file}",
            f"at most {places!r:.40}, the text encoder's max_position_embeddings",
        )
    if (file := folder / "special_tokens_map.json").exists():
        json_object(file, refuse)
    added = json_object(file, refuse) if (file := folder / "added_tokens.json").exists() else {}
    if (file := folder / "tokenizer.json").exists():
        whole = json_object(file, refuse)
        model = whole.get("model")
        own = whole.get("added_tokens") or []
        known = model.get("vocab") if isinstance(model, dict) else None
        ids = [token.get("id") for token in own if isinstance(token, dict)]
        _verify_ids(file, known, [*ids, *added.values()], text, refuse)
        return
    _verify_ids(
        folder / "vocab.json", json_object(folder / "vocab.json", refuse), [*added.values()], text, refuse
    )
    try:
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as e:
        raise refuse(
            f"{folder / 'merges.txt'}, which cannot be read ({e})", "the tokenizer's merges"
        ) from None
    bad = next(
        (
            i
            for i, line in enumerate(lines, 1)
            if line.strip() and not line.startswith("#") and len(line.split()) != 2
        ),
        None,
    )
    if bad is not None:
        raise refuse(f"{folder / 'merges.txt'}:{bad}, which is no merge", "two tokens a line")


def _verify_ids(file: Path, known: Any, added: list[Any], text: Mapping[str, Any], refuse: Refuse) -> None:
    """That the text encoder has a row for each token."""
    if not isinstance(known, dict) or not known:
        raise refuse(f"{file} without a vocabulary", "tokens with their numbers")
    ids = [*known.values(), *added]
    size = text.get("vocab_size", 49408)
    if strange := [i for i in ids if not isinstance(i, int) or i < 0]:
        raise refuse(f"a token's number {strange[0]!r:.40} in {file}", "whole numbers from 0")
    if not isinstance(size, int) or max(ids) >= size:
        raise refuse(
            f"tokens up to number {max(ids)} in {file}",
            f"less than {size!r:.40}, the text encoder's vocab_size",
        )
