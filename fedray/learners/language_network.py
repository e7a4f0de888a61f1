"""The network of a causal language model, with its weights or on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from fedray.learners.base_families import PartFiles
from fedray.learners.base_files import refuse_foreign_entries
from fedray.learners.base_networks import whole
from fedray.learners.base_precision import BasePrecision
from fedray.learners.bases import Base
from fedray.learners.language_bases import refuse_other_kinds
from fedray.scenario.base import Refused

PART = "network"
FILES = PartFiles("transformers", "AutoModelForCausalLM", "model", "model_type", "")
# arguments under which a base gives the logits of some positions alone, or takes positions
KEEP = "logits_to_keep"
POSITIONS = "position_ids"


def open_network(base: Base, name: str, device: torch.device, precision: BasePrecision) -> Any:
    """transformers' network of a base.

    Args:
        base: where it is.
        name: what the scenario calls it, for errors.
        device: where it shall be; "meta": nowhere.
        precision: of frozen weights.

    Raises:
        Refused: for a base that is no causal language model, brings code, or is not whole.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    refuse = partial(Refused, "model.base")
    source = str(base.configuration or base.source) if device.type == "meta" else base.source
    local = base.local or (device.type == "meta" and base.configuration is not None)
    config = AutoConfig.from_pretrained(source, local_files_only=local)
    entries: Mapping[str, Any] = config.to_dict()
    refuse_foreign_entries(f"the configuration of {name!r}", entries, refuse)
    refuse_other_kinds(entries, name, refuse)
    if device.type == "meta":
        return _on_meta(config)
    opened: Any = AutoModelForCausalLM.from_pretrained(
        source,
        local_files_only=local,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # it names no shapes otherwise
        attn_implementation="sdpa",  # torch's own
        **precision.options(PART, FILES),
    )
    network, facts = opened
    return precision.on_device(PART, whole(name, PART, network, facts), device, trains=True)


def _on_meta(config: Any) -> Any:
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=True):
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def is_tied(network: Any) -> bool:
    """Whether the head has the embedding's weights."""
    head = network.get_output_embeddings()
    return head is not None and head.weight is network.get_input_embeddings().weight


def untie(network: Any) -> None:
    """Gives the head weights of its own, where it has the embedding's: they may then be two parties', and
    train apart. Its files say so."""
    if is_tied(network):
        head = network.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    network.config.tie_word_embeddings = False
    network.all_tied_weights_keys = {}
