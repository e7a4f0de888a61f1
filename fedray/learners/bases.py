"""Where a base model is: shipped, in a local folder, or on the hub. No torch here, so that `check` can
look."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from fedray import shipped
from fedray.data.image_folder import read
from fedray.data.samples import Samples
from fedray.learners.base_families import FAMILIES, FamilyFiles
from fedray.learners.base_folder import refuse_single_file, verify
from fedray.scenario.base import Refused
from fedray.scenario.control import Control
from fedray.scenario.evaluation import Evaluation
from fedray.scenario.text_to_image import TextToImage

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Base:
    """`source` is what `from_pretrained` takes; `configuration` a folder that has at least the networks'
    configs."""

    source: str
    configuration: Path | None

    @property
    def local(self) -> bool:
        """Whether nothing has to be asked of the network."""
        return Path(self.source).is_absolute()


def locate(base: str, folder: Path, key: str = "model.base") -> Base:
    """One code path for a shipped name, a folder in diffusers' layout, and a hub name, under a scenario's
    `key`.

    Raises:
        Refused: where none of the three is there, or a folder is no whole Stable Diffusion. Whether a hub
            name exists only loading can tell.
    """
    for place in (shipped.HERE / base, folder / expanded(base)):
        refuse_single_file(place, key)
        if (place / "model_index.json").is_file():
            verify(place, key)
            return Base(str(place.resolve()), place)
    shipped_names = ", ".join(p.parent.name for p in sorted(shipped.HERE.glob("*/model_index.json")))
    expected = f"a shipped model ({shipped_names}), a folder with model_index.json, or owner/name on the hub"
    if (folder / base).is_dir():
        raise Refused(key, f"{base!r} without model_index.json", expected)
    if HUB_NAME.fullmatch(base):
        known = shipped.HERE / "networks" / base.split("/")[1]
        return Base(base, known if known.is_dir() else None)
    raise Refused(key, f"{base!r}, which is not there", expected)


def verify_base(section: TextToImage, folder: Path) -> None:
    """Raises Refused where the base of a `model` section, or what its ControlNet's samples follow, is not
    there, and for what its family does not know."""
    if (family := family_at(locate(section.base, folder))) is not None:
        refuse_unknown_to(family, section)
    if section.control is not None:
        examples(section.control, folder)


def base_source(section: TextToImage, folder: Path) -> str:
    """A folder, or a name on the hub. Raises Refused where it is not there."""
    return locate(section.base, folder).source


def family_at(base: Base) -> FamilyFiles | None:
    """The family that a base's model_index.json names; None for a base on the hub without a configuration."""
    if base.configuration is None:
        return None
    try:
        index = json.loads((base.configuration / "model_index.json").read_text(encoding="utf-8"))
        return FAMILIES.get(index["_class_name"])
    except (OSError, ValueError, KeyError, TypeError):  # it is no such configuration
        return None


def refuse_unknown_to(family: FamilyFiles, section: TextToImage) -> None:
    """Raises Refused for what a `model` section asks of a base that is trained by flow matching, and only
    those of discrete noise have."""
    if family.discrete:
        return
    if section.min_snr_gamma is not None:
        got = f"{section.min_snr_gamma} for a {family.pipeline}, which is trained by flow matching"
        raise Refused("model.min_snr_gamma", got, "none: its timesteps are drawn by their weight instead")
    if section.min_timestep:
        got = f"{section.min_timestep} for a {family.pipeline}, which is trained by flow matching"
        raise Refused("model.min_timestep", got, "0: its timesteps are drawn by their weight")
    if section.control is not None:
        got = f"one on a {family.pipeline}, whose network is a transformer"
        raise Refused("model.control", got, "a base of Stable Diffusion 1, 2 or XL")


def verify_sampling(section: TextToImage, evaluation: Evaluation, folder: Path) -> None:
    """Raises Refused for what samples of a `model` section's base cannot follow.

    Args:
        section: of the model.
        evaluation: the scenario's.
        folder: where the base's relative path starts.
    """
    if (family := family_at(locate(section.base, folder))) is not None:
        refuse_negative_prompt(family, evaluation.negative_prompt)


def refuse_negative_prompt(family: FamilyFiles, negative: str) -> None:
    """Raises Refused for a negative prompt that a family's pipeline would ignore."""
    if negative and not family.takes_negative_prompt:
        got = f"{negative!r:.60} for a {family.pipeline}, which has guidance distilled into it"
        raise Refused("evaluation.negative_prompt", got, "none, or a base of Stable Diffusion")


def tunable_parts(base: str, folder: Path) -> tuple[str, ...] | None:
    """Names of the parts of a base that a tuning may train, by its family; None for a base on the hub, whose
    family is not known here.

    Args:
        base: as `model.base`.
        folder: where its relative path starts.

    Raises:
        Refused: for a base that is not there.
    """
    family = family_at(locate(base, folder))
    return None if family is None else family.trainable


def examples(control: Control, folder: Path) -> Samples | None:
    """The pictures that samples follow; None where a scenario names none.

    Raises:
        Refused: where they are not there.
    """
    if control.examples is None:
        return None
    try:
        return read(control.examples, folder, "model.control", "text", "", condition_column=control.column)
    except Refused as e:
        raise Refused("model.control.examples", e.got, e.expected) from None


def expanded(base: str) -> Path:
    """With ~ as the home folder it stands for; as it is where nobody has such a home."""
    try:
        return Path(base).expanduser()
    except RuntimeError:
        return Path(base)
