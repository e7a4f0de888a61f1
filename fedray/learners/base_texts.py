"""What a base model's tokenizers make of texts, looked at without torch: captions that are too long, and new
tokens that they do not allow."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedray.errors import printable
from fedray.learners.base_families import FAMILIES, FamilyFiles
from fedray.learners.base_files import json_object
from fedray.learners.bases import Base, family_at, locate
from fedray.scenario.base import Refused
from fedray.scenario.text_to_image import TextToImage
from fedray.scenario.textual_inversion import TextualInversion


def cut_captions(base: Base, captions: Sequence[str], spelled: Callable[[str], str] = str) -> str | None:
    """What a person should know of captions that are longer than what the text encoder reads; None where none
    is, or where the tokenizer is not on this machine.

    Args:
        base: whose tokenizer it is.
        captions: as the samples have them.
        spelled: gives a caption with the tokenizer's own words in the place of new tokens.
    """
    if (tokenizer := _clip_tokenizer(base, "tokenizer")) is None:
        return None
    most = int(tokenizer.model_max_length)
    distinct = dict.fromkeys(captions)
    ids = (
        tokenizer([spelled(caption) for caption in distinct], truncation=False).input_ids if distinct else []
    )
    lengths = dict(zip(distinct, map(len, ids), strict=True))
    if not (cut := [caption for caption in captions if lengths[caption] > most]):
        return None
    first = printable(cut[0] if len(cut[0]) <= 80 else cut[0][:77] + "...")
    longer = (
        f"{len(cut)} of {len(captions)} captions have more than the {most} tokens that the text encoder reads"
    )
    return f"{longer}, and are cut; the first: {first}"


def verify_new_tokens(section: TextualInversion, model: TextToImage, folder: Path) -> None:
    """That a base model's family learns new tokens, that its texts have room for them, and, where its
    tokenizers are on this machine, that these allow them.

    Args:
        section: of the tuning.
        model: whose base it is.
        folder: where its relative path starts.

    Raises:
        Refused: otherwise.
    """
    base = locate(model.base, folder)
    if (family := family_at(base)) is None or base.configuration is None:
        return
    refuse_without_clips(section, family)
    for _, (name, encoder) in zip(family.clips, family.tokenizers.items(), strict=False):
        file = base.configuration / encoder / "config.json"
        config = json_object(file, lambda got, expected: Refused("model.base", got, expected))
        refuse_many_vectors(section, int(config.get("max_position_embeddings", 77)))
        if (tokenizer := _clip_tokenizer(base, name)) is not None:
            initializer_id(section, tokenizer)


def refuse_without_clips(section: TextualInversion, family: FamilyFiles) -> None:
    """Raises Refused for a family whose text encoders do not learn new tokens."""
    if not family.clips:
        able = " or ".join(name for name, other in FAMILIES.items() if other.clips)
        expected = f"a base that is a {able}, or tuning.kind lora, full or partial"
        raise Refused("tuning.kind", f"{section.kind} for a {family.pipeline}", expected)


def refuse_many_vectors(section: TextualInversion, places: int) -> None:
    """Raises Refused for more vectors than a text of `places` tokens has room for."""
    if section.vectors > places - 2:
        expected = f"at most {places - 2}: the text encoder reads {places} tokens, two of them its own"
        raise Refused("tuning.vectors", section.vectors, expected)


def initializer_id(section: TextualInversion, tokenizer: Any) -> int:
    """The number of the token that the new rows begin with.

    Raises:
        Refused: where the tokenizer knows the new token already, or the initializer is not one token of it.
    """
    vocabulary = tokenizer.get_vocab()
    if known := [name for name in pieces(section.token, section.vectors) if name in vocabulary]:
        raise Refused("tuning.token", known[0], "a token that the base model does not know")
    ids = tokenizer.encode(section.initializer, add_special_tokens=False)
    if len(ids) != 1:
        got = f"{section.initializer!r}, which is {len(ids)} tokens"
        raise Refused("tuning.initializer", got, "a word that is one token of the base model")
    return int(ids[0])


def pieces(token: str, vectors: int) -> list[str]:
    """The names that diffusers gives a token of several vectors."""
    return [token, *(f"{token}_{i}" for i in range(1, vectors))]


def _clip_tokenizer(base: Base, name: str) -> Any:
    """transformers' tokenizer by its name in a base model; None where it is not on this machine."""
    from transformers import CLIPTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # it would say of the first long caption alone what `cut_captions` says
    try:
        tokenizer = CLIPTokenizer.from_pretrained(base.source, subfolder=name, local_files_only=True)
    except (OSError, ValueError):
        return None
    # of a hub's base whose files are not here, transformers makes one that knows its special tokens alone
    return tokenizer if len(tokenizer.get_vocab()) > len(set(tokenizer.all_special_tokens)) else None
