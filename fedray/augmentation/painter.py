"""Pictures of labels, painted by a text_to_image model that stays resident (GenFL, Qiang et al. 2024, Sec.
III-B)."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from fedray.augmentation.labels import painted
from fedray.data import Form
from fedray.data.samples import Array
from fedray.files import whole
from fedray.learners.bases import locate
from fedray.learners.text_to_image import TextToImage
from fedray.randomness import SERVER, key
from fedray.scenario.augmentation import Augmentation
from fedray.scenario.base import Refused
from fedray.scenario.model import TextToImage as Section
from fedray.transport.buffer import DTYPES


@dataclass(frozen=True)
class Pictures:
    """Generated pictures as they travel."""

    pixels: np.ndarray  # uint8 [n, channels, height, width], in the generator's size and the data's channels
    labels: np.ndarray  # int64 [n]

    def __len__(self) -> int:
        return len(self.labels)

    def samples(self, form: Form) -> Array:
        return Array(lambda: self.pixels, self.labels, form.label_names)


class Painter:
    """Paints each owner's pictures once, in the same batches whenever it is asked: the same bits. With
    `keep`, a folder, the server's are PNG files there, and those that are whole are not painted again."""

    def __init__(
        self,
        section: Augmentation,
        folder: Path,
        form: Form,
        seed: int,
        device: torch.device,
        keep: Path | None = None,
    ) -> None:
        self.section, self.form, self.seed, self.keep = section, form, seed, keep
        with _generator_refused():
            base = locate(section.generator, folder)
            self.learner = TextToImage.load(
                _as_model(section.generator), base, device, DTYPES[section.precision]
            )
        self.pipeline = self.learner.pipeline()
        self._embedded: dict[str, Tensor] = {}
        self._made: dict[int, list[np.ndarray]] = {}

    def paint(self, owner: int, labels: np.ndarray) -> Pictures:
        """The first pictures of a client's sequence, or the server's; `labels` [n] says of what."""
        made = self._made.setdefault(owner, [])
        for chunk in self._chunks(len(made), len(labels)):
            kept = self._kept(owner, chunk, labels)
            made += map(self._channels, kept if kept is not None else self._paint(owner, chunk, labels))
        return Pictures(np.stack(made[: len(labels)]), labels.astype(np.int64))

    def prompt(self, owner: int, i: int, label: int) -> str:
        name = self.form.label_names[label]
        templates, called = self.section.templates_of(name), self.section.names.get(name, name)
        template = templates[key(self.seed, i, owner, "template") % len(templates)]
        return template.format(label=called, a="an" if called[:1] in tuple("aeiou") else "a")

    def _chunks(self, start: int, end: int) -> Iterator[range]:
        """A round's pictures are painted `batch_size` at once, and never with another round's."""
        each = painted(self.section, len(self.form.label_names), 1)
        for first in range(0, end, each):
            last = min(first + each, end)
            for i in range(max(first, start), last, self.section.batch_size):
                yield range(i, min(i + self.section.batch_size, last))

    @torch.no_grad()
    def _paint(self, owner: int, chunk: range, labels: np.ndarray) -> list[np.ndarray]:
        """uint8 [height, width, 3] each, from noise of its own."""
        prompts = [self.prompt(owner, i, int(labels[i])) for i in chunk]
        noise = [torch.Generator().manual_seed(self._noise(owner, i)) for i in chunk]
        wanted, unwanted = (
            torch.cat([self._embed(p) for p in prompts]),
            self._embed("").expand(len(chunk), -1, -1),
        )
        with self.learner.autocast():
            out = self.pipeline(
                prompt_embeds=wanted, negative_prompt_embeds=unwanted, generator=noise, output_type="pt",
                num_inference_steps=self.section.inference_steps, guidance_scale=self.section.guidance_scale,
                height=self.learner.resolution, width=self.learner.resolution,
            ).images  # fmt: skip
        pictures = list((out.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        if self.keep is not None and owner == SERVER:
            for i, prompt, picture in zip(chunk, prompts, pictures, strict=True):
                self._save(i, int(labels[i]), prompt, picture)
        return pictures

    def _embed(self, prompt: str) -> Tensor:
        if prompt not in self._embedded:
            with self.learner.autocast():
                self._embedded[prompt] = self.learner.text_encoder(self.learner.tokenize([prompt]))[0]
        return self._embedded[prompt]

    def _noise(self, owner: int, i: int) -> int:
        return key(self.seed, i, owner, "picture")

    def _channels(self, picture: np.ndarray) -> np.ndarray:
        """[channels, height, width]."""
        return (
            np.moveaxis(picture, -1, 0)
            if self.form.channels == 3
            else np.asarray(Image.fromarray(picture).convert("L"))[None]
        )

    def _file(self, i: int, label: int) -> Path:
        assert self.keep is not None
        name = re.sub(r"[^a-z0-9]+", "-", self.form.label_names[label].lower()).strip("-")
        return self.keep / f"{i:06d}-{name or label}.png"

    def _facts(self, i: int, prompt: str) -> str:
        facts = {"generator": self.section.generator, "prompt": prompt, "seed": self._noise(SERVER, i)}
        return json.dumps(
            facts | {k: getattr(self.section, k) for k in ("inference_steps", "guidance_scale", "precision")}
        )

    def _save(self, i: int, label: int, prompt: str, picture: np.ndarray) -> None:
        file, info = self._file(i, label), PngInfo()
        info.add_itxt("fedray", self._facts(i, prompt))
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as part:
            Image.fromarray(picture).save(part, "png", pnginfo=info)

    def _kept(self, owner: int, chunk: Sequence[int], labels: np.ndarray) -> list[np.ndarray] | None:
        """A batch that lies there whole, painted as it would be now; or at another variant of the same sweep,
        as a copy."""
        if self.keep is None or owner != SERVER:
            return None
        variants = (
            self.keep.parent.parent.glob("*/pictures")
            if (self.keep.parents[1] / "scenario.resolved.yaml").is_file()
            else []
        )
        for folder in (self.keep, *sorted(variants)):
            found = [
                picture for i in chunk if (picture := self._opened(folder, i, int(labels[i]))) is not None
            ]
            if len(found) == len(chunk):
                for i, picture in zip(chunk, found, strict=True) if folder != self.keep else []:
                    self._save(i, int(labels[i]), self.prompt(owner, i, int(labels[i])), picture)
                return found
        return None

    def _opened(self, folder: Path, i: int, label: int) -> np.ndarray | None:
        try:
            with Image.open(folder / self._file(i, label).name) as image:
                image.load()
                told = image.info.get("fedray")
                return (
                    np.array(image.convert("RGB"))
                    if told == self._facts(i, self.prompt(SERVER, i, label))
                    else None
                )
        except (OSError, SyntaxError, ValueError):
            return None


def _as_model(generator: str) -> Section:
    return Section(kind="text_to_image", base=generator)


@contextmanager
def _generator_refused() -> Iterator[None]:
    """What is said of a base model is said of the generator."""
    try:
        yield
    except Refused as e:
        raise Refused("augmentation.generator", e.got, e.expected) from None


def verify(section: Augmentation, form: Form) -> None:
    """That every label can be put into a prompt.

    Raises:
        Refused: where one has no name or no template, or a key names no label.
    """
    for where, keys in (
        ("names", section.names),
        ("templates", section.templates if isinstance(section.templates, dict) else {}),
    ):
        for name in keys:
            if name not in form.label_names:
                raise Refused(f"augmentation.{where}", repr(name), f"a label: {', '.join(form.label_names)}")
    for name in form.label_names:
        if not section.names.get(name, name).strip():
            raise Refused("augmentation.names", f"nothing for the label {name!r}", "what a prompt calls it")
        if not section.templates_of(name):
            raise Refused(
                "augmentation.templates",
                f"none for the label {name!r}",
                "one for each label, or a list for all",
            )


def counted(section: Augmentation, folder: Path) -> tuple[float, int]:
    """FLOPs of painting one picture, and its pixels a side, on the meta device.

    Raises:
        Refused: for a generator that is not there.
    """
    unet, text_encoder, decoder, resolution = _networks(section.generator, folder)
    twice = 2 if section.guidance_scale > 1 else 1  # with the prompt and without
    return twice * (unet * section.inference_steps + text_encoder) + decoder, resolution


@cache  # a sweep's variants ask the same
def _networks(generator: str, folder: Path) -> tuple[int, int, int, int]:
    """FLOPs of the U-Net's, the text encoder's and the decoder's run over one picture, and its pixels a
    side."""
    from torch.utils.flop_counter import FlopCounterMode

    with _generator_refused():
        learner = TextToImage.on_meta(_as_model(generator), locate(generator, folder))
    batch, _ = learner.blank_batch()
    text = torch.zeros(
        1, learner.text_encoder.config.max_position_embeddings, dtype=torch.long, device="meta"
    )
    runs = [
        lambda: learner.unet(batch.latents, batch.timesteps, batch.text),
        lambda: learner.text_encoder(text),
    ]
    runs.append(lambda: learner.vae.decode(batch.latents))
    flops = []
    with torch.no_grad():
        for run in runs:
            with FlopCounterMode(display=False) as counter:
                run()
            flops.append(int(counter.get_total_flops()))
    return flops[0], flops[1], flops[2], learner.resolution
