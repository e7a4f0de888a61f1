"""codec: images as symbols on the air and back (Bourtsoulatze et al. 2019)."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedray.data import DatasetInfo
from fedray.learners.codec_channels import CodecChannel, arrived, transmitted
from fedray.learners.codec_linear import LinearCodec, Moments
from fedray.learners.codec_networks import ImageNetwork, SymbolNetwork, scaled_snr
from fedray.learners.contexts import LearnerContext
from fedray.learners.learner import Learner
from fedray.learners.losses import squared_error
from fedray.learners.pictures import ImageShard
from fedray.learners.stages import Stage
from fedray.scenario.base import Refused
from fedray.scenario.codec import MOST_DB
from fedray.scenario.codec import Codec as Section
from fedray.scenario.kinds import implementation

ARRIVED = ("received", "received_snr_db", "received_gain")
CONFIG = "config.json"
MOST_NUMBERS = 4096  # of an image whose components are found: 32 x 32 in colour has 3072


@dataclass
class Transmission:
    """One step's inputs, every draw made. b samples."""

    images: Tensor  # [b, c, h, w] in 0..1
    snr_db: Tensor  # [b], the mean signal-to-noise ratio, which both ends know
    gain: Tensor  # [b], the channel's amplitude, which the receiver knows
    noise: Tensor  # [b, 2k], standard normal
    weight: Tensor | None = None  # [b], of each sample in the loss


class Encoder(nn.Module):
    """Images to symbols. It has the moments of the linear codec, or a linear map that trains."""

    def __init__(self, section: Section, channels: int, size: int, uses: int) -> None:
        super().__init__()
        self.residual = SymbolNetwork(2 * uses, section.hidden)
        if section.start == "linear":
            self.moments = Moments(channels, size)
        else:
            self.linear = nn.Linear(channels * size**2, 2 * uses)


class Decoder(nn.Module):
    """Symbols to images."""

    def __init__(self, section: Section, channels: int, size: int, uses: int) -> None:
        super().__init__()
        self.refinement = ImageNetwork(channels, section.width)
        if section.start == "random":
            self.linear = nn.Linear(2 * uses, channels * size**2)


class Codec(Learner):
    """Its linear maps are those of the closed form, of the moments that it received; or train as well.

    Attributes:
        uses: k, channel uses (complex symbols) an image.
        channel: that it is trained for.
    """

    counts_alike_on_cpu = True

    def __init__(self, section: Section, context: LearnerContext) -> None:
        super().__init__(section, context)
        self.refuse_no_size()
        channels = context.dataset.channels
        self.shape = (channels, self.size, self.size)
        numbers = channels * self.size**2
        self._refuse(section, numbers)
        self.uses = round(section.uses * numbers)
        self.channel: CodecChannel = implementation(section.channel)(section.channel)
        self.encoder = Encoder(section, channels, self.size, self.uses)
        self.decoder = Decoder(section, channels, self.size, self.uses)
        self.parts = {"encoder": self.encoder, "decoder": self.decoder}
        self._linear: LinearCodec | None = None
        self._solved = torch.empty(0)  # the moments that this is of
        pieces = [
            Stage("encode", ("images", "snr_db"), ("symbols",), self.encode_images, (self.encoder,)),
            Stage("channel", ("symbols", "gain", "snr_db", "noise"), ARRIVED, arrived, on_air="symbols"),
            Stage("decode", ARRIVED, ("x",), self.decode_symbols, (self.decoder,)),
        ]
        loss = Stage("loss", ("x", "images"), ("loss",), squared_error, optional=("weight",))
        self.stages = self.staged(pieces, loss)

    def _refuse(self, section: Section, numbers: int) -> None:
        """Raises Refused for what images of so many numbers have no room for."""
        if self.size % 4:
            raise Refused("model.resolution", self.size, "a multiple of 4: images are halved twice")
        if round(section.uses * numbers) < 1:
            raise Refused("model.uses", section.uses, f"at least 1 / {numbers}, a channel use an image")
        if section.start == "linear" and numbers > MOST_NUMBERS:
            got = f"linear for images of {numbers} numbers"
            raise Refused(
                "model.start", got, f"random, or a model.resolution of at most {MOST_NUMBERS} of them"
            )

    @property
    def default_parts(self) -> list[str]:
        return list(self.parts)

    # Both ends

    def encode_images(self, images: Tensor, snr_db: Tensor) -> Tensor:
        """Symbols [b, 2k], of images [b, c, h, w] in 0..1. Each image's have the power that the linear analog
        codec gives it, which is 1 a complex symbol in the mean over images; without that codec, each image's
        have exactly 1 (Bourtsoulatze et al. 2019, Eq. 3)."""
        flat = images.flatten(1)
        if self.section.start == "linear":
            linear = self.linear.encode(flat, snr_db)
            length = linear.norm(dim=1, keepdim=True)
            if self.encoder.training:
                self.encoder.moments.add(flat)
        else:
            linear = self.encoder.linear(flat)
            length = torch.full_like(linear[:, :1], self.uses**0.5)
        symbols = self.encoder.residual(linear, scaled_snr(snr_db)).float()
        return symbols * (length / symbols.norm(dim=1, keepdim=True).clamp(min=1e-6))

    def decode_symbols(self, received: Tensor, snr_db: Tensor, gain: Tensor) -> Tensor:
        """Images [b, c, h, w] of what was received [b, 2k].

        Args:
            received: the symbols as they arrived.
            snr_db: [b], the mean signal-to-noise ratio.
            gain: [b], the channel's amplitude.
        """
        if self.section.start == "linear":
            estimate = self.linear.decode(received, snr_db, gain)
        else:
            estimate = self.decoder.linear(received)
        now_db = snr_db + 20 * gain.clamp(min=1e-6).log10()
        return self.decoder.refinement(estimate.unflatten(1, self.shape), scaled_snr(now_db)).float()

    @torch.no_grad()
    def transmit(self, batch: Transmission) -> Tensor:
        """Images [b, c, h, w] in 0..1 as they arrive."""
        with self.evaluating(), self.autocast():
            symbols = self.encode_images(batch.images, batch.snr_db)
            received = transmitted(symbols, batch.gain, batch.snr_db, batch.noise)
            return self.decode_symbols(received, batch.snr_db, batch.gain).clamp(0, 1)

    @property
    def linear(self) -> LinearCodec:
        """The linear analog codec of the moments that were last solved for."""
        if self._linear is None:
            self._solve()
        assert self._linear is not None
        return self._linear

    def _solve(self) -> None:
        """The closed form of the moments as they are now."""
        if self.section.start != "linear":
            return
        moments = self.encoder.moments
        now = torch.cat([moments.mean, moments.second])
        if self._linear is None or (now.device.type != "meta" and not torch.equal(now, self._solved)):
            self._solved = now
            self._linear = LinearCodec.of(moments, self.uses)

    # Training

    def prepare_round(self, round_number: int) -> None:
        """The linear codec of the moments that came with the weights, which stays for this local update."""
        self._solve()
        if self.section.start == "linear":
            self.encoder.moments.restart()

    def travelling_buffers(self) -> dict[str, Tensor]:
        """With the moments, where they are learnt."""
        buffers = super().travelling_buffers()
        if self.section.start == "linear":
            moments = self.encoder.moments.named_buffers()
            buffers |= {f"encoder.moments.{name}": buffer for name, buffer in moments}
        return buffers

    # In a split, where a worker has several local updates under way, and the server no encoder

    @property
    def update_state(self) -> Any:
        """How many images have gone into the moments."""
        return self.encoder.moments.seen if self.section.start == "linear" else None

    @update_state.setter
    def update_state(self, value: Any) -> None:
        if self.section.start == "linear":
            self.encoder.moments.seen = value

    def receive_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        if self.section.start == "linear":
            moments = self.encoder.moments
            moments.mean = buffers["encoder.moments.mean"]
            moments.second = buffers["encoder.moments.second"]

    def at_snr(self, batch: Transmission, snr_db: float) -> Transmission:
        limited = min(max(snr_db, -MOST_DB), MOST_DB)
        return replace(batch, snr_db=torch.full_like(batch.snr_db, limited))

    def draw(self, shard: ImageShard, indices: np.ndarray, generator: torch.Generator) -> Transmission:
        images = shard.images[torch.from_numpy(indices).to(self.device)].float() / 255
        n = len(indices)
        snr_db = self.channel.snrs_db(n, generator).to(self.device)
        gain = self.channel.gains(n, generator).to(self.device)
        noise = torch.randn(n, 2 * self.uses, generator=generator).to(self.device)
        return Transmission(images, snr_db, gain, noise)

    # Evaluation

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        self._solve()
        with super().evaluating():
            yield

    def metrics(self, batch: Transmission) -> dict[str, float]:
        """The peak signal-to-noise ratio in dB, of images whose draws are those of training."""
        error = (self.transmit(batch) - batch.images).square().flatten(1).mean(1)
        return {"eval_psnr": float(-10 * error.clamp(min=1e-10).log10().mean())}

    # Files

    def name_in_file(self, name: str) -> str:
        return name

    def save(self, folder: Path) -> None:
        """Weights and moments as safetensors, and what built them."""
        super().save(folder)
        dataset = self.context.dataset
        facts = {
            "image_channels": dataset.channels,
            "size": self.size,
            "labels": list(dataset.label_names),
            "channel_uses": self.uses,
        }
        (folder / CONFIG).write_text(json.dumps(self.section.model_dump() | facts, indent=2) + "\n")

    @classmethod
    def exported_dataset(cls, section: Section, folder: Path) -> DatasetInfo:
        facts = json.loads((folder / CONFIG).read_text())
        return DatasetInfo(facts["image_channels"], facts["size"], tuple(facts["labels"]))
