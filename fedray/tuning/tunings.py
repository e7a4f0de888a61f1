"""The kinds of tuning behind one face: `apply` says what trains and travels, `export` writes the result's
files."""

from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor

from fedray.learners.learner import Learner
from fedray.scenario.base import Refused
from fedray.scenario.tuning import Full, Lora, Tuning
from fedray.transport.buffer import Layout, safetensors_bytes
from fedray.tuning import lora


def apply(section: Tuning, learner: Learner, seed: int, freeze_a: bool = False) -> dict[str, Tensor]:
    """What travels, by the name it travels under: the parameters that train, then buffers that only travel.

    Raises:
        Refused: for names that nothing in the model has.
    """
    found: dict[str, Tensor] = {}
    if isinstance(section, Lora):
        found |= lora.apply(section, learner.parts, seed, freeze_a)
    elif isinstance(section, Full):
        parts = section.parts or list(learner.parts)[:1]
        for part in parts:
            if part not in learner.parts:
                raise Refused(
                    "tuning.parts", repr(part), f"one of {', '.join(p for p in learner.parts if p != 'vae')}"
                )
            found |= {f"{part}.{name}": p for name, p in learner.parts[part].named_parameters()}
    else:
        names = {
            f"{part}.{name}": p
            for part in learner.parts
            if part != "vae"
            for name, p in learner.parts[part].named_parameters()
        }
        for pattern in section.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise Refused(
                    "tuning.patterns",
                    repr(pattern),
                    f"a pattern that names weights, such as {next(iter(names))!r}",
                )
        found |= {
            name: p
            for name, p in names.items()
            if any(fnmatchcase(name, pattern) for pattern in section.patterns)
        }
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found | learner.travelling_buffers()


def export(section: Tuning, learner: Learner, layout: Layout, folder: Path, adapter: bool = True) -> None:
    """The result, as the learner holds it, in its ecosystem's own files: the adapter where it is all that was
    learnt, and the whole model, merged. A LoRA learner has no adapter left afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(section, Lora):
        if adapter:
            found = {
                name: p.detach().to("cpu", layout.dtype) for name, p in lora.adapters(learner.parts).items()
            }
            lora.save(found, section, folder)
        lora.merge(learner.parts)
    learner.save(folder)


def export_files(section: Tuning, learner: Learner, layout: Layout) -> dict[str, int]:
    """Names and exact bytes of the files that hold what was trained, without writing them. The first is the
    one that diffusers reads."""
    # without its part
    entries = {
        n.split(".", 1)[1]: (layout.precision, s) for n, s in zip(layout.names, layout.shapes, strict=True)
    }
    if isinstance(section, Lora):
        adapter = lora.adapters(learner.parts)
        kohya = lora.kohya_tensors(adapter, section.alpha_or_rank)
        return {
            file: safetensors_bytes({n: (layout.precision, list(t.shape)) for n, t in tensors.items()})
            for file, tensors in ((lora.DIFFUSERS_FILE, adapter), (lora.KOHYA_FILE, kohya))
        }
    return {learner.weights_file: safetensors_bytes(entries)}
