"""CollaFuse (Allmendinger et al. 2024): a DDPM cut by timestep. Clients denoise the last steps, the server
the noisier ones.

The server never sees an image, only one that its client has noised up to the cut. From there its network is a
DDPM of its own: q(x_t | x_cut) has the betas from the cut on, and what it learns to remove is the noise added
since.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.diffusion import AT_ONCE, Diffusion
from fedray.learners.learner import Learner
from fedray.learners.losses import weighted_mean
from fedray.learners.pictures import ImageShard, scaled
from fedray.learners.stages import Stage
from fedray.randomness import SERVER, key
from fedray.scenario.model import Diffusion as Section


@dataclass
class TwiceNoisedImages:
    """One step's inputs, every draw made. b samples."""

    images: Tensor  # [b, c, h, w] in -1..1
    noise: Tensor  # as images: what the client's network shall predict
    timesteps: Tensor  # [b] int64, before the cut
    cut_noise: Tensor  # as images: the noise up to the cut
    weight: Tensor | None = None  # [b], of each sample in the loss


class CollaFuse(Learner):
    weights_file = "unet/diffusion_pytorch_model.safetensors"

    def __init__(self, section: Section, context: LearnerContext) -> None:
        super().__init__(section, context)
        assert section.server_from is not None
        self.cut = section.server_from
        betas = np.linspace(section.beta_start, section.beta_end, section.timesteps).tolist()
        of_client = replace(context, seed=key(context.seed, 0, SERVER, "client network"))
        self.client = Diffusion.load(section, of_client, betas=betas[: self.cut])
        self.server = Diffusion.load(section, context, betas=betas[self.cut :])
        self.caches_samples = self.server.caches_samples
        self.parts = {"unet": nn.ModuleDict({"server": self.server.unet, "client": self.client.unet})}
        before = Stage(
            "client",
            ("images", "noise", "timesteps", "cut_noise"),
            ("cut_images", "client_loss"),
            self._client_loss,
            (self.client.unet,),
        )
        after = Stage("server", ("cut_images",), ("server_loss",), self._server_loss, (self.server.unet,))
        loss = Stage("loss", ("client_loss", "server_loss"), ("loss",), _sum_of_losses, optional=("weight",))
        self.stages = self.staged([before, after], loss)

    def _client_loss(
        self, images: Tensor, noise: Tensor, timesteps: Tensor, cut_noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The image noised up to the cut, as the server gets it, and the client's own error [b]."""
        last = torch.full_like(timesteps, self.cut - 1)
        cut_images = self.client.schedule.add_noise(images, cut_noise, last)
        return cut_images, _error(self.client, images, noise, timesteps)

    def _server_loss(self, cut_images: Tensor) -> Tensor:
        """The error [b] of the server's network, whose noise is the server's own: torch's, which every pass
        seeds anew."""
        noise = torch.randn(cut_images.shape).to(cut_images.device)
        steps = self.section.timesteps - self.cut
        timesteps = torch.randint(steps, (len(cut_images),)).to(cut_images.device)
        return _error(self.server, cut_images, noise, timesteps)

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        self.client.prepare_training(gradient_checkpointing)
        self.server.prepare_training(gradient_checkpointing)

    def draw(self, shard: ImageShard, indices: np.ndarray, generator: torch.Generator) -> TwiceNoisedImages:
        images = scaled(shard.images[torch.from_numpy(indices).to(self.device)])
        noise, cut_noise = torch.randn((2, *images.shape), generator=generator).to(self.device)
        timesteps = torch.randint(self.cut, (len(images),), generator=generator).to(self.device)
        return TwiceNoisedImages(images, noise, timesteps, cut_noise)

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> Tensor:
        """One image a seed: the server's network from noise to the cut, the client's from there; each in its
        share of the steps. Prompts are not read."""
        at_once = sampling.at_once or AT_ONCE
        of_server = max(1, round(sampling.steps * (1 - self.cut / self.section.timesteps)))
        of_client = max(1, sampling.steps - of_server)
        cut_images = self.server.denoise(seeds, of_server, at_once, clip=False)
        return self.client.as_images(self.client.denoise(seeds, of_client, at_once, cut_images))

    def save(self, folder: Path) -> None:
        """The server's network as a DDPMPipeline, whose pictures are noised ones, and the client's as another
        in `client`."""
        self.server.save(folder)
        self.client.save(folder / "client")

    def load_weights(self, folder: Path) -> None:
        self.server.load_weights(folder)
        self.client.load_weights(folder / "client")


def _sum_of_losses(client_loss: Tensor, server_loss: Tensor, weight: Tensor | None = None) -> Tensor:
    """Of both networks' squared errors [b], the mean."""
    return weighted_mean(client_loss + server_loss, weight)


def _error(network: Diffusion, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Squared error of the predicted noise, [b]."""
    noised = network.schedule.add_noise(images, noise, timesteps)
    predicted = network.unet(noised, timesteps, return_dict=False)[0]
    return F.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))
