"""The names of a learner's stages, between which a split cuts it. No torch here, so that `check` can look."""

import json
from collections.abc import Sequence
from pathlib import Path

from fedray.learners.bases import locate
from fedray.scenario.base import Refused
from fedray.scenario.model import Classifier, Diffusion, Model, Transformer
from fedray.scenario.topology import Split

CLASSIFIERS = {
    "cnn": ("conv1", "conv2", "dense", "head"),
    "resnet18": ("stem", "layer1", "layer2", "layer3", "layer4", "head"),
}


def stage_names(model: Model, folder: Path) -> list[str] | None:
    """In their order; None for a base on the hub or without a configuration, which only loading can tell.

    Raises:
        Refused: for a base that is not there.
    """
    if isinstance(model, Classifier):
        return [*CLASSIFIERS[model.network], "loss"]
    if isinstance(model, Transformer):
        return ["embed", *(f"layer_{i}" for i in range(model.layers)), "head", "loss"]
    if isinstance(model, Diffusion):
        return ["client", "server", "loss"] if model.server_from else [*_unet(len(model.channels)), "loss"]
    base = locate(model.base, folder)
    if base.configuration is None:
        return None
    try:
        config = json.loads((base.configuration / "unet" / "config.json").read_text())
        levels, mid = len(config["down_block_types"]), bool(config.get("mid_block_type", True))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # it is no such configuration
        return None
    return ["text", *_unet(levels, mid), "loss"]


def _unet(levels: int, mid: bool = True) -> list[str]:
    down, up = ([f"{way}_{i}" for i in range(levels)] for way in ("down", "up"))
    return ["in", *down, *["mid"] * mid, *up, "out"]


def refuse_unknown(names: Sequence[str], topology: Split) -> None:
    """Raises:
    Refused: for a cut or a tail that is none of a learner's stages, or leaves the server none.
    """
    cut, tail = topology.cut, topology.tail
    if cut not in ("auto", *names[:-1]):
        raise Refused("topology.cut", repr(cut), f"auto, or one of {', '.join(names[:-1])}")
    left = names[(0 if cut == "auto" else names.index(cut)) + 2 :]
    if tail is not None and (tail not in ("auto", *left) or not left):
        there = (
            f"auto, or one of {', '.join(left)}"
            if left
            else f"a cut before {cut}, which leaves the server nothing"
        )
        raise Refused("topology.tail", repr(tail), there)
