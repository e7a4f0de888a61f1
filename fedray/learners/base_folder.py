"""What a base model's folder holds, looked at without torch: that it is of a family which is trained as it
should be, whole, and nothing that would run code or ask the network."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedray.learners.base_families import FAMILIES, FamilyFiles
from fedray.learners.base_files import Refuse, json_object, refuse_foreign
from fedray.learners.base_tokenizer import verify_tokenizer
from fedray.learners.weights_file import refuse_pointer, tensors_in
from fedray.scenario.base import Refused

ATTENTION = (None, "eager", "sdpa")  # ours; others are kernels, some fetched from a hub as code
# of older versions of diffusers
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
CONVERT = (
    "diffusers' StableDiffusionPipeline.from_single_file('{file}').save_pretrained('FOLDER'), then FOLDER"
)
REWRITE = (
    "safetensors: DiffusionPipeline.from_pretrained('{folder}',"
    " use_safetensors=False).save_pretrained('FOLDER'), then FOLDER"
)


def refuse_single_file(file: Path, key: str) -> None:
    """Raises Refused for one file in the place of a folder, and says how it becomes one."""
    if file.is_file():
        got = f"{str(file)!r}, a single file"
        raise Refused(key, got, f"a folder: {CONVERT.format(file=file)}")


def verify(folder: Path, key: str) -> None:
    """That a folder in diffusers' layout is a whole base model.

    Raises:
        Refused: naming the file, and the entry in it, that is not as it should be.
    """

    def refuse(got: object, expected: str) -> Refused:
        return Refused(key, got, expected)

    family = _verify_index(folder, refuse)
    _refuse_adapters(folder, family, refuse)
    configs = {name: json_object(folder / name / "config.json", refuse) for name in family.parts}
    for name, config in configs.items():
        _verify_config(folder / name, config, family, refuse)
    family.verify_shapes(folder, configs, refuse)
    file = folder / "scheduler" / "scheduler_config.json"
    family.verify_scheduler(file, json_object(file, refuse), refuse)
    for name, encoder in family.tokenizers.items():
        verify_tokenizer(folder / name, configs[encoder], refuse)
    for name, part in family.parts.items():
        verify_weights(folder / name, part.weights, refuse)


def verify_loaded(
    family: FamilyFiles,
    name: str,
    configs: Mapping[str, Mapping[str, Any]],
    scheduler: Mapping[str, Any],
    key: str,
) -> None:
    """The same of the configurations of a base on the hub, whose files nobody has looked at before they were
    loaded.

    Args:
        family: that it is of.
        name: of the base model.
        configs: of its parts.
        scheduler: its noise schedule's configuration.
        key: the scenario's key that names the base, for errors.

    Raises:
        Refused: naming the file, and the entry in it.
    """

    def refuse(got: object, expected: str) -> Refused:
        return Refused(key, got, expected)

    folder = Path(name)
    family.verify_shapes(folder, configs, refuse)
    family.verify_scheduler(folder / "scheduler" / "scheduler_config.json", scheduler, refuse)


def family_of(index: Mapping[str, Any], file: Path, refuse: Refuse) -> FamilyFiles:
    """The family that a model_index.json names. Raises what `refuse` makes of a pipeline of another kind."""
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in FAMILIES:
        expected = f"one that text_to_image trains: {', '.join(FAMILIES)}"
        raise refuse(f"a {kind!s:.60} ({file})", expected)
    return FAMILIES[kind]


def _verify_index(folder: Path, refuse: Refuse) -> FamilyFiles:
    file = folder / "model_index.json"
    index = json_object(file, refuse)
    family = family_of(index, file, refuse)
    for name, allowed in family.named_in_index().items():
        if index.get(name) not in allowed:
            library, class_name = allowed[0]
            raise refuse(f"{name} {json.dumps(index.get(name))[:80]} in {file}", f"{library}'s {class_name}")
    refuse_foreign(file, index, refuse)
    return family


def _verify_config(part: Path, config: dict[str, Any], family: FamilyFiles, refuse: Refuse) -> None:
    file = part / "config.json"
    refuse_foreign(file, config, refuse)
    form = family.parts[part.name]
    if (got := config.get(form.entry)) != form.value:
        raise refuse(f"{form.entry} {got!r:.60} in {file}", form.value)
    for entry in ("attn_implementation", "_attn_implementation"):
        if config.get(entry) not in ATTENTION:
            raise refuse(f"{entry} {config[entry]!r:.60} in {file}", "none: attention is torch's own")


def _refuse_adapters(folder: Path, family: FamilyFiles, refuse: Refuse) -> None:
    """What transformers would load by itself, and ask the network for."""
    for place in (folder, *(folder / name for name in (*family.parts, *family.tokenizers))):
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            if (place / name).exists():
                raise refuse(
                    f"an adapter ({place / name}) beside the weights", "a base model: merge it first"
                )


def stored(folder: Path, name: str, stem: str, key: str) -> set[str]:
    """The names of a part's tensors as its network has them, but for `text_model.` in front; the libraries
    still load those of older versions.

    Args:
        folder: the base model's.
        name: the part's.
        stem: of its weights' file.
        key: the scenario's key that names the base, for errors.

    Raises:
        Refused: where its files are not whole.
    """

    def refuse(got: object, expected: str) -> Refused:
        return Refused(key, got, expected)

    names = set()
    for tensor in verify_weights(folder / name, stem, refuse):
        path = tensor.removeprefix("text_model.").split(".")
        if len(path) > 2 and "attentions" in path:
            path[-2] = OLD_ATTENTION.get(path[-2], path[-2])
        names.add(".".join(path))
    return names


def verify_weights(part: Path, stem: str, refuse: Refuse) -> set[str]:
    """The names of the tensors in one safetensors file, or in several and an index of what is in which."""
    file = part / f"{stem}.safetensors"
    index = part / f"{stem}.safetensors.index.json"
    for one in (file, index):
        refuse_pointer(one, refuse)
    names = set(tensors_in(file, refuse)) if file.exists() else set()
    if not index.exists():
        if file.exists():
            return names
        raise _without_weights(part, stem, refuse)
    weight_map = json_object(index, refuse).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(name, str) for name in weight_map.values())
    ):
        raise refuse(f"{index} without a weight_map", "which tensor is in which file")
    for name in sorted(set(weight_map.values())):
        if not re.fullmatch(r"[\w.-]+\.safetensors", name):
            raise refuse(f"{name!r:.60} in {index}", "files beside it")
        if not (part / name).exists():
            raise refuse(f"{part} without {name}, which its index names", "all of its parts")
        there = tensors_in(part / name, refuse)
        lacking = [tensor for tensor, where in weight_map.items() if where == name and tensor not in there]
        if lacking:
            raise refuse(f"{part / name} without {listed(lacking)}", "what its index says of it")
        names |= there.keys()
    return names


def _without_weights(part: Path, stem: str, refuse: Refuse) -> Refused:
    variants = sorted(p.name for p in part.glob(f"{stem}*.safetensors*"))
    pickled = sorted(p.name for suffix in ("bin", "ckpt", "pt") for p in part.glob(f"*.{suffix}"))
    if variants:
        return refuse(
            f"{part} with {listed(variants)} alone",
            f"{stem}.safetensors (a variant by that name is read as it is)",
        )
    if pickled:
        return refuse(
            f"{part} with {listed(pickled)} alone, which are pickles", REWRITE.format(folder=part.parent)
        )
    return refuse(f"{part} without weights", f"{stem}.safetensors in it")


def listed(names: list[str], most: int = 5) -> str:
    """Names, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
