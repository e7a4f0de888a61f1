"""CollaFuse (Allmendinger et al. 2024): a DDPM cut by timestep. Clients denoise the last steps, the server
the noisier ones.

The server never sees an image, only one that its client has noised up to the cut. From there its network is a
DDPM of its
own: q(x_t | x_cut) has the betas from the cut on, and what it learns to remove is the noise added since.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedray.data import Form
from fedray.learners.diffusion import Diffusion
from fedray.learners.learner import Learner
from fedray.learners.pictures import Shard, scaled
from fedray.learners.stages import Stage
from fedray.randomness import SERVER, key
from fedray.scenario.model import Diffusion as Section


@dataclass
class Batch:
    """One step's inputs, every draw made. b samples."""

    images: Tensor  # [b, c, h, w] in -1..1
    noise: Tensor  # as images: what the client's network shall predict
    timesteps: Tensor  # [b] int64, before the cut
    veil: Tensor  # as images: the noise up to the cut


class CollaFuse(Learner):
    weights_file = "unet/diffusion_pytorch_model.safetensors"

    def __init__(
        self, section: Section, form: Form, seed: int, device: torch.device, compute: torch.dtype
    ) -> None:
        assert section.server_from is not None
        self.section, self.cut, self.device, self.compute = section, section.server_from, device, compute
        betas = np.linspace(section.beta_start, section.beta_end, section.timesteps).tolist()
        self.client = Diffusion(
            section, form, key(seed, 0, SERVER, "client network"), device, compute, betas[: self.cut]
        )
        self.server = Diffusion(section, form, seed, device, compute, betas[self.cut :])
        self.size, self.keeps_shards = self.server.size, self.server.keeps_shards
        self.parts: dict[str, nn.Module] = {
            "unet": nn.ModuleDict({"server": self.server.unet, "client": self.client.unet})
        }
        near = Stage(
            "client",
            ("images", "noise", "timesteps", "veil"),
            ("veiled", "near"),
            self._near,
            (self.client.unet,),
        )
        far = Stage("server", ("veiled",), ("far",), self._far, (self.server.unet,))
        # The sum of both networks' mean squared errors.
        loss = Stage("loss", ("near", "far"), ("loss",), lambda near, far: (near + far).mean())
        self.stages = self.staged([near, far], loss)

    def _near(self, images: Tensor, noise: Tensor, timesteps: Tensor, veil: Tensor) -> tuple[Tensor, Tensor]:
        """The image as the server gets it, and the client's own error [b]."""
        last = torch.full_like(timesteps, self.cut - 1)
        return self.client.schedule.add_noise(images, veil, last), _error(
            self.client, images, noise, timesteps
        )

    def _far(self, veiled: Tensor) -> Tensor:
        """The error [b] of the server's network, whose noise is the server's own: torch's, which every pass
        seeds anew."""
        noise = torch.randn(veiled.shape).to(veiled.device)
        timesteps = torch.randint(self.section.timesteps - self.cut, (len(veiled),)).to(veiled.device)
        return _error(self.server, veiled, noise, timesteps)

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        self.client.prepare_training(gradient_checkpointing)
        self.server.prepare_training(gradient_checkpointing)

    def draw(self, shard: Shard, indices: np.ndarray, generator: torch.Generator) -> Batch:
        images = scaled(shard.images[torch.from_numpy(indices).to(self.device)])
        noise, veil = torch.randn((2, *images.shape), generator=generator).to(self.device)
        return Batch(
            images, noise, torch.randint(self.cut, (len(images),), generator=generator).to(self.device), veil
        )

    def blank_batch(self) -> tuple[Batch, int]:
        blank, _ = self.server.blank_batch()
        return Batch(blank.images, blank.noise, blank.timesteps, blank.noise), 1

    def sample(self, seeds: Sequence[int], steps: int, at_once: int = 64) -> Tensor:
        """One image a seed: the server's network from noise to the cut, the client's from there; each in its
        share of `steps`."""
        far = max(1, round(steps * (1 - self.cut / self.section.timesteps)))
        veiled = self.server.denoise(seeds, far, at_once, clip=False)
        return self.client.sample(seeds, max(1, steps - far), at_once, veiled)

    def save(self, folder: Path) -> None:
        """The server's network as a DDPMPipeline, whose pictures are noised ones, and the client's as another
        in `client`."""
        self.server.save(folder)
        self.client.save(folder / "client")


def _error(network: Diffusion, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Squared error of the predicted noise, [b]."""
    predicted = network.unet(
        network.schedule.add_noise(images, noise, timesteps), timesteps, return_dict=False
    )[0]
    return F.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))
