"""The names of a learner's stages, between which a split cuts it. No torch here, so that `check` can look."""

import json
from collections.abc import Sequence
from pathlib import Path

from fedray.lazy import resolve
from fedray.learners.bases import family_at, locate
from fedray.scenario.base import Refused
from fedray.scenario.codec import Codec
from fedray.scenario.gan import Gan
from fedray.scenario.model import Classifier, Diffusion, Transformer
from fedray.scenario.model_section import ModelSection
from fedray.scenario.text_to_image import TextToImage
from fedray.scenario.topology import Split
from fedray.scenario.vae import Vae

CLASSIFIERS = {
    "cnn": ("conv1", "conv2", "dense", "head"),
    "cnn_norm": ("conv1", "conv2", "dense", "head"),
    "lenet": ("conv1", "conv2", "conv3", "head"),
    "resnet18": ("stem", "layer1", "layer2", "layer3", "layer4", "head"),
}


def stage_names(section: ModelSection, folder: Path) -> list[str] | None:
    """In their order; None where only loading the learner can tell.

    Raises:
        Refused: for a base model that is not there.
    """
    if section.stage_names is None:
        return None
    names: list[str] | None = resolve(section.stage_names)(section, folder)
    return names


def of_classifier(section: Classifier, folder: Path) -> list[str]:
    return [*CLASSIFIERS[section.network], "loss"]


def of_transformer(section: Transformer, folder: Path) -> list[str]:
    return ["embed", *(f"layer_{i}" for i in range(section.layers)), "head", "loss"]


def of_diffusion(section: Diffusion, folder: Path) -> list[str]:
    if section.server_from:
        return ["client", "server", "loss"]
    return [*_unet(len(section.channels)), "loss"]


def of_vae(section: Vae, folder: Path) -> list[str]:
    levels = range(len(section.channels))
    return [*(f"down_{i}" for i in levels), "latent", "expand", *(f"up_{i}" for i in levels), "loss"]


def of_codec(section: Codec, folder: Path) -> list[str]:
    return ["encode", "channel", "decode", "loss"]


def of_gan(section: Gan, folder: Path) -> list[str]:
    return ["z", "generator", "discriminator"]


def of_text_to_image(section: TextToImage, folder: Path) -> list[str] | None:
    """None for a base on the hub or without a configuration."""
    base = locate(section.base, folder)
    family = family_at(base)
    if base.configuration is None or family is None:
        return None
    try:
        file = base.configuration / next(iter(family.parts)) / "config.json"
        names = family.stage_names(json.loads(file.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # it is no such configuration
        return None
    if section.control is not None:
        names.insert(names.index("up_0"), "control")
        names.insert(names.index("in") + 1, "condition")
    return ["text", *names, "loss"]


def _unet(levels: int) -> list[str]:
    down, up = ([f"{way}_{i}" for i in range(levels)] for way in ("down", "up"))
    return ["in", *down, "mid", *up, "out"]


def refuse_unknown(names: Sequence[str], topology: Split) -> None:
    """Whether a split can cut there.

    Raises:
        Refused: for a learner without stages, and for a cut or a tail that is none of them or leaves the
            server none.
    """
    if len(names) < 2:
        raise Refused(
            "topology.kind",
            "split for a model without stages",
            "parallel or relay, or a learner whose `stages` are two or more",
        )
    cut = topology.cut
    tail = topology.tail
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
