"""What every family of base models offers to text_to_image: its networks, how a caption becomes what they
are conditioned on, the stages of a step, its pipeline, and the names that its adapters have in files."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedray.lazy import resolve
from fedray.learners.adapter_files import peft_key
from fedray.learners.base_families import FamilyFiles
from fedray.learners.base_networks import index_of, load_parts, noise_config, parts_on_meta
from fedray.learners.base_precision import BasePrecision
from fedray.learners.bases import Base
from fedray.learners.families.new_tokens import expanded
from fedray.learners.families.noise import DiscreteNoise, Noise
from fedray.learners.families.offload import Offload
from fedray.learners.stages import Stage

Conditions = dict[str, Tensor]  # by name, samples in the first dimension
CHUNK = 16  # texts that are embedded in one go


class Family(ABC):
    """A base model of one family, with its weights, or on the meta device.

    Args:
        files: what its folder holds.
        index: its model_index.json.
        base: where it is.
        name: what the scenario calls it, for errors.
        device: where the networks are; "meta": nowhere.
        precision: of frozen networks.

    Attributes:
        parts: networks by name.
        tokenizers: by name; none on the meta device.
        tokens: names of the conditions before they are embedded: token ids, one for each text encoder.
        conditions: names of the conditions that the denoising network takes of a text.
        arguments: what the pipeline calls each condition of a text.
        named: gives a text with what a tuning has learnt under its name.
        text_memory: where the text encoders are.
    """

    tokens: ClassVar[tuple[str, ...]]
    conditions: ClassVar[tuple[str, ...]]
    arguments: ClassVar[Mapping[str, str]] = {"text": "prompt_embeds", "pooled": "pooled_prompt_embeds"}

    def __init__(
        self,
        files: FamilyFiles,
        index: Mapping[str, Any],
        base: Base,
        name: str,
        device: torch.device,
        precision: BasePrecision,
    ) -> None:
        self.files = files
        self.index = index
        self.base = base
        self.device = device
        self.named: Callable[[str], str] = str
        self.parts: dict[str, Any]
        self.tokenizers: dict[str, Any] = {}
        if device.type == "meta":
            self.parts = parts_on_meta(files, base, name)
        else:
            self.parts, self.tokenizers = load_parts(files, base, name, device, precision)
        for part in self.parts.values():
            part.requires_grad_(False).eval()
        self.text_memory = Offload(self.text_encoders, device)
        self.noise = self.noise_of(noise_config(files, base, name, self.parts))

    def noise_of(self, config: Mapping[str, Any]) -> Noise:
        """The noise that this family is trained with, from its scheduler's configuration."""
        return DiscreteNoise(config)

    @property
    def trainable(self) -> tuple[str, ...]:
        """Names of the parts that a tuning may train, the one that denoises first."""
        return self.files.trainable

    @property
    def denoiser(self) -> Any:
        return self.parts[self.trainable[0]]

    @property
    def vae(self) -> Any:
        return self.parts["vae"]

    @property
    def text_encoders(self) -> list[Any]:
        """In the order of `tokens`."""
        return [self.parts[name] for name in self.files.tokenizers.values()]

    @property
    def trains_text(self) -> bool:
        return self.text_memory.trains

    @property
    def latent_factor(self) -> int:
        """Pixels a side of a latent's number."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def resolution(self) -> int:
        """Pixels a side that the base was made for."""
        return int(self.denoiser.config.sample_size) * self.latent_factor

    @property
    def bucket_step(self) -> int | None:
        """What the sides of pictures that are no squares are multiples of; None where it takes squares
        alone."""
        return None

    @property
    def sides(self) -> int:
        """What a picture's sides in pixels are multiples of."""
        return self.latent_factor

    def passes(self, guidance_scale: float) -> int:
        """How often the denoising network runs in a step of sampling: guidance asks it without a prompt
        too."""
        return 2 if guidance_scale > 1 else 1

    def lengths(self) -> list[int]:
        """How many tokens of a text each text encoder reads."""
        return [encoder.config.max_position_embeddings for encoder in self.text_encoders]

    def scaled(self, latents: Tensor) -> Tensor:
        """The autoencoder's latents as the denoising network sees them."""
        return latents * self.vae.config.scaling_factor

    def tokenize(self, captions: Sequence[str]) -> Conditions:
        """Token ids [n, l] int64 for each text encoder."""
        ids = {}
        texts = [self.named(caption) for caption in captions]
        for name, (tokenizer, most) in zip(self.tokens, self._limited_tokenizers(), strict=True):
            encoded = tokenizer(
                expanded(texts, tokenizer),
                padding="max_length",
                max_length=most,
                truncation=True,
                return_tensors="pt",
            )
            ids[name] = encoded.input_ids.to(self.device)
        return ids

    def count_tokens(self, text: str) -> list[tuple[int, int]]:
        """For each text encoder the tokens of a text, its start and end among them, and how many it reads."""
        counted = []
        for tokenizer, most in self._limited_tokenizers():
            texts = expanded([self.named(text)], tokenizer)
            ids = tokenizer(texts, truncation=False, verbose=False).input_ids
            counted.append((len(ids[0]), most))
        return counted

    def _limited_tokenizers(self) -> list[tuple[Any, int]]:
        """Tokenizers in the order of `tokens`, each with how many tokens of a text are read."""
        pairs = zip(self.tokenizers.values(), self.lengths(), strict=True)
        return [(tokenizer, min(most, tokenizer.model_max_length)) for tokenizer, most in pairs]

    def blank_tokens(self, n: int) -> Conditions:
        """Token ids of n texts with nothing in them, for counting work."""
        return {
            name: torch.zeros(n, length, dtype=torch.long, device=self.device)
            for name, length in zip(self.tokens, self.lengths(), strict=True)
        }

    def embed(self, ids: Conditions) -> Conditions:
        """What the denoising network takes of texts, from their tokens' ids."""
        with self.text_memory.in_use():
            return self._embed(ids)

    @abstractmethod
    def _embed(self, ids: Conditions) -> Conditions:
        """The same, by text encoders that are on the device."""

    def embed_in_chunks(self, ids: Conditions) -> Conditions:
        """The same of any number of texts, CHUNK at a time: a text encoder's activations take more memory
        than what it gives."""
        chunks = zip(*(values.split(CHUNK) for values in ids.values()), strict=True)
        with self.text_memory.in_use():
            embedded = [self.embed(dict(zip(ids, chunk, strict=True))) for chunk in chunks]
        return {name: torch.cat([chunk[name] for chunk in embedded]) for name in self.conditions}

    def image_conditions(
        self,
        sizes: Sequence[tuple[int, int]],
        resolution: int,
        shape: tuple[int, int] | None = None,
        padded: bool = False,
    ) -> Conditions:
        """What the denoising network takes of images beside their latents.

        Args:
            sizes: width and height of each before it was scaled and cut.
            resolution: pixels a side afterwards.
            shape: width and height afterwards, where they are no squares.
            padded: whether they were padded, not cut.
        """
        return {}

    def text_stage(self) -> Stage:
        """From token ids, or from what was made of them before, to the conditions of a text."""
        optional = tuple(dict.fromkeys((*self.tokens, *self.conditions)))[1:]

        def embed(first: Tensor, *others: Tensor | None) -> tuple[Tensor | None, ...] | Tensor | None:
            given: dict[str, Any] = {"text": first} | dict(zip(optional, others, strict=True))
            if not first.is_floating_point():
                given |= self.embed({name: given[name] for name in self.tokens})
            values = tuple(given[name] for name in self.conditions)
            return values if len(values) > 1 else values[0]

        return Stage("text", ("text",), self.conditions, embed, tuple(self.text_encoders), optional)

    @abstractmethod
    def denoising_stages(self, side: int) -> list[Stage]:
        """From latents of `side` numbers a side, noise, timesteps and conditions to what is predicted."""

    def prompt_arguments(self, prompts: Sequence[str], negative: str) -> dict[str, Any]:
        """What the pipeline is given of texts. It expands a token of several vectors by itself."""
        named = [self.named(prompt) for prompt in prompts]
        return {"prompt": named, "negative_prompt": [self.named(negative)] * len(prompts)}

    def embedded_arguments(self, prompts: Conditions, negative: Conditions) -> dict[str, Any]:
        """What the pipeline is given of texts that are embedded already."""
        own = {self.arguments[name]: value for name, value in prompts.items()}
        return own | {f"negative_{self.arguments[name]}": value for name, value in negative.items()}

    def pipeline(self, embeds: bool = True) -> Any:
        """These networks as diffusers' pipeline, with the base's own sampler. One that embeds no texts has no
        text encoders, and is given texts that are embedded already."""
        import diffusers
        from diffusers import schedulers

        config: Any = diffusers.DDPMScheduler.load_config(
            self.base.source, subfolder="scheduler", local_files_only=self.base.local
        )
        sampler = getattr(schedulers, config["_class_name"]).from_config(config)
        pipeline: Any = getattr(diffusers, self.files.pipeline)(
            **(self.parts if embeds else self.parts | dict.fromkeys(self.files.tokenizers.values())),
            **self.tokenizers,
            scheduler=sampler,
            **self.pipeline_options(),
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def pipeline_options(self) -> dict[str, Any]:
        """What the pipeline is built with beside networks, tokenizers and sampler."""
        return {}

    def save(self, pipeline: Any, folder: Path) -> None:
        """This family's pipeline as `from_pretrained` reads it."""
        for tokenizer in self.tokenizers.values():
            backend = getattr(tokenizer, "backend_tokenizer", None)
            if backend is not None:  # its file would tell how it was last used
                backend.no_padding()
                backend.no_truncation()
        pipeline.save_pretrained(folder, safe_serialization=True)
        # transformers would load them as stored, beside a denoising network in fp32
        for name in self.files.tokenizers.values():
            config = folder / name / "config.json"
            stored = json.loads(config.read_text())
            config.write_text(json.dumps(stored | {"dtype": "float32"}, indent=2) + "\n")

    # Adapters

    @abstractmethod
    def adapter_targets(self, chosen: str) -> dict[str, list[str]]:
        """Names of layers by the part that has them, for `attention` or `kohya`."""

    def adapter_key(self, part: str, name: str) -> str:
        """An adapter tensor's key in diffusers' file."""
        return peft_key(part, name)

    @abstractmethod
    def kohya_tensors(self, adapter: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
        """An adapter under kohya-ss's names, with an alpha a layer, for ComfyUI and A1111; empty where those
        read diffusers' file."""


def open_family(base: Base, name: str, device: torch.device, precision: BasePrecision) -> Family:
    """The base model, as its family has it.

    Args:
        base: where it is.
        name: what the scenario calls it, for errors.
        device: where the networks are; "meta": nowhere.
        precision: of frozen networks.

    Raises:
        Refused: for a base of a family that is not trained here, or that is not whole.
    """
    files, index = index_of(base, name)
    family: Family = resolve(files.implementation)(files, index, base, name, device, precision)
    return family


def kohya_named(adapter: Mapping[str, Tensor], alpha: float, stems: Mapping[str, str]) -> dict[str, Tensor]:
    """An adapter's tensors by kohya-ss's names, and an alpha a layer.

    Args:
        adapter: tensors by their keys in diffusers' file.
        alpha: an adapter adds alpha / rank times B A.
        stems: what the names of each part's layers begin with.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in adapter.items():
        layer, _, side = name.removesuffix(".weight").rpartition(".lora_")
        part, path = layer.split(".", 1)
        stem = stems[part] + path.replace(".", "_")
        out[stem + (".lora_down.weight" if side == "A" else ".lora_up.weight")] = tensor
        out[stem + ".alpha"] = torch.tensor(alpha, dtype=tensor.dtype, device=tensor.device)
    return out
