"""Where a language model's base is (shipped, in a local folder, or on the hub), and whether it is whole. No
torch here, so that `check` can look."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedray import shipped
from fedray.data.places import verify_file
from fedray.learners.base_files import Refuse, json_object, refuse_foreign
from fedray.learners.base_folder import verify_weights
from fedray.learners.bases import HUB_NAME, Base, expanded
from fedray.scenario.base import Refused
from fedray.scenario.language_model import LanguageModel

# model_type of those whose layers are stages: each is one module, called with positions alone.
CUT = ("gemma", "llama", "mistral", "qwen2", "qwen3")
CAUSAL = re.compile(r"\w+(ForCausalLM|LMHeadModel)")
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def locate(base: str, folder: Path, key: str = "model.base") -> Base:
    """One code path for a shipped name, a folder as `save_pretrained` writes it, and a hub name, under a
    scenario's `key`.

    Raises:
        Refused: where none of the three is there, or a folder holds no whole causal language model. Whether
            a hub name exists only loading can tell.
    """
    for place in (shipped.HERE / base, folder / expanded(base)):
        if (place / "config.json").is_file() and (place != shipped.HERE / base or _is_shipped(place)):
            _verify(place, key)
            return Base(str(place.resolve()), place)
    expected = "a folder with config.json, as save_pretrained writes it, or owner/name on the hub"
    if names := [place.name for place in sorted(shipped.HERE.iterdir()) if _is_shipped(place)]:
        expected = f"a shipped language model ({', '.join(names)}), {expected}"
    if (folder / base).exists():
        raise Refused(key, f"{base!r} without config.json", expected)
    if HUB_NAME.fullmatch(base):
        known = shipped.HERE / "networks" / base.split("/")[1]
        return Base(base, known if (known / "config.json").is_file() else None)
    raise Refused(key, f"{base!r}, which is not there", expected)


def _is_shipped(place: Path) -> bool:
    return (place / "config.json").is_file() and (place / "tokenizer.json").is_file()


def base_source(section: LanguageModel, folder: Path) -> str:
    """A folder, or a name on the hub. Raises Refused where it is not there."""
    return locate(section.base, folder).source


def verify_base(section: LanguageModel, folder: Path) -> None:
    """Raises Refused where the base of a `model` section is not there, is no whole causal language model, or
    is shorter than the samples are to be, and where nothing says how it writes conversations."""
    base = locate(section.base, folder)
    if section.chat_template is not None:
        verify_file(section.chat_template, folder, "model.chat_template")
    if base.configuration is None:
        return
    config = json_object(base.configuration / "config.json", _refusing("model.base"))
    refuse_too_long(section, config)
    if base.local and section.chat_template is None and not _has_template(base.configuration):
        raise without_template(section)


def refuse_too_long(section: LanguageModel, config: Mapping[str, Any]) -> None:
    """Raises Refused for samples of more tokens than the base has positions for; `config` is its own."""
    places = config.get("max_position_embeddings", config.get("n_positions"))
    if isinstance(places, int) and section.max_length > places:
        raise Refused("model.max_length", section.max_length, f"at most {places:,}, the base's positions")


def without_template(section: LanguageModel) -> Refused:
    """That nothing says how a base writes conversations."""
    expected = (
        "a base that has one (usually called Instruct or Chat), or model.chat_template: a file, such as "
        "shipped:alpaca.jinja"
    )
    return Refused("model.base", f"{section.base!r}, whose tokenizer has no chat template", expected)


def stage_names(section: LanguageModel, folder: Path) -> list[str] | None:
    """Of a split; None for a base on the hub whose configuration is not known.

    Raises:
        Refused: for a base that is not there, or whose layers are no stages.
    """
    verify_base(section, folder)
    base = locate(section.base, folder)
    if base.configuration is None:
        return None
    config = json_object(base.configuration / "config.json", _refusing("model.base"))
    refuse_uncut(section, config)
    layers = config.get("num_hidden_layers")
    if not isinstance(layers, int):
        return None
    return ["embed", *(f"layer_{i}" for i in range(layers)), "head", "loss"]


def refuse_uncut(section: LanguageModel, config: Mapping[str, Any]) -> None:
    """Raises Refused for a split of a base whose layers are no stages, or that attends to less than all of a
    sample; `config` is its own."""
    kind = config.get("model_type")
    if kind not in CUT:
        expected = f"parallel or relay, or a base that is a {' or '.join(CUT)}"
        raise Refused("topology.kind", f"split for a {kind!s:.40}", expected)
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if isinstance(window, int) and section.max_length > window:
        expected = f"at most {window:,} in a split, the base's sliding window"
        raise Refused("model.max_length", section.max_length, expected)


def _refusing(key: str) -> Refuse:
    return lambda got, expected: Refused(key, got, expected)


def _verify(folder: Path, key: str) -> None:
    """That a folder holds a whole causal language model with its tokenizer, and nothing that would run code.

    Raises:
        Refused: naming the file, and the entry in it, that is not as it should be.
    """
    refuse = _refusing(key)
    file = folder / "config.json"
    config = json_object(file, refuse)
    refuse_foreign(file, config, refuse)
    refuse_other_kinds(config, str(file), refuse)
    if (adapter := folder / "adapter_config.json").exists():
        raise refuse(f"an adapter ({adapter}) beside the weights", "a base model: merge it first")
    if (tokenizer := folder / "tokenizer_config.json").exists():
        refuse_foreign(tokenizer, json_object(tokenizer, refuse), refuse)
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise refuse(f"{folder} without a tokenizer", f"one of {', '.join(VOCABULARIES)} in it")
    verify_weights(folder, "model", refuse)


def refuse_other_kinds(config: Mapping[str, Any], place: str, refuse: Refuse) -> None:
    """Raises what `refuse` makes of a model that is no causal language model.

    Args:
        config: its own.
        place: where that stands.
        refuse: makes the error of what was got and what was expected.
    """
    kinds = config.get("architectures")
    kind = kinds[0] if isinstance(kinds, list) and kinds else None
    if not isinstance(kind, str) or CAUSAL.fullmatch(kind) is None or config.get("is_encoder_decoder"):
        expected = "a causal language model of transformers, such as LlamaForCausalLM"
        raise refuse(f"a {kind!s:.60} ({place})", expected)


def _has_template(folder: Path) -> bool:
    """Whether a folder's tokenizer has a chat template, in whichever file."""
    if any((folder / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return bool(config.get("chat_template"))
    except (OSError, ValueError, AttributeError):  # there is none
        return False
