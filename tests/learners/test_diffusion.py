import pytest
import torch

from fedray.data import DatasetInfo
from fedray.learners.collafuse import CollaFuse
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.diffusion import Diffusion, NoisedImages
from fedray.learners.stages import inputs, run
from fedray.scenario import Refused
from fedray.scenario.model import Diffusion as Section

SMALL = {"kind": "diffusion", "resolution": 16, "channels": [32, 64], "attention": [1], "layers": 1}


def context(channels, size, labels, seed=0, device="cpu"):
    return LearnerContext(DatasetInfo(channels, size, labels), seed=seed, device=torch.device(device))


def images(made, seeds, steps):
    return made.sample([""] * len(seeds), seeds, Sampling(steps=steps))


def learner(**changes):
    section = Section.model_validate(SMALL | changes)
    return Diffusion.load(section, context(1, 28, []))


@pytest.fixture(scope="module")
def small():
    return learner()


def test_the_networks_given_size_is_chens():
    section = Section(kind="diffusion", resolution=64)
    network = Diffusion.load(section, context(3, None, [], device="meta")).unet
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters == 113_673_219
    assert round(4 * parameters / 2**20, 2) == 433.63


def test_the_betas_rise_in_a_line_from_1e_4_to_0_02_over_1000_steps(small):
    betas = small.schedule.betas
    assert len(betas) == 1000
    assert torch.allclose(betas, torch.linspace(1e-4, 0.02, 1000))


def test_the_loss_is_the_mean_squared_error_of_the_noise_at_the_drawn_timesteps(small):
    x, noise, t = torch.randn(3, 1, 16, 16), torch.randn(3, 1, 16, 16), torch.tensor([0, 500, 999])
    alpha = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t].view(3, 1, 1, 1)
    noisy = alpha.sqrt() * x + (1 - alpha).sqrt() * noise  # Ho et al. 2020, Eq. 4
    with torch.no_grad():
        expected = (small.unet(noisy, t).sample - noise).square().mean()
        assert torch.allclose(small.loss(NoisedImages(x, noise, t)), expected, atol=1e-5)


def test_an_image_depends_on_its_own_seed_and_not_on_its_neighbours(small):
    together, alone = images(small, [3, 4, 5], 3), images(small, [4], 3)
    assert together.shape == (3, 3, 16, 16)
    assert (together[1] - alone[0]).abs().max() < 1e-3
    assert (together[0] - together[1]).abs().max() > 0.05
    assert 0 <= together.min() <= together.max() <= 1


def test_the_same_seed_gives_the_same_network_and_another_seed_another():
    first, again = learner(), learner()
    other = Diffusion.load(first.section, context(1, 28, [], seed=1))
    pairs = zip(first.unet.parameters(), again.unet.parameters(), other.unet.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(
        torch.equal(a, b) for a, b in zip(first.unet.parameters(), other.unet.parameters(), strict=True)
    )


def test_a_size_that_cannot_be_halved_often_enough_is_refused():
    with pytest.raises(Refused, match=r"model\.resolution: got 18, expected a multiple of 4"):
        learner(resolution=18, channels=[32, 32, 32])


def test_what_is_saved_opens_as_a_ddpm_pipeline_of_the_same_weights(small, tmp_path):
    from diffusers import DDPMPipeline

    small.save(tmp_path)
    opened = DDPMPipeline.from_pretrained(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(opened.unet.parameters(), small.unet.parameters(), strict=True)
    )
    assert opened.scheduler.config.beta_schedule == "linear"


def test_a_sampler_has_the_timesteps_and_the_noise_of_its_model():
    section = Section(
        kind="diffusion",
        resolution=16,
        channels=[32, 32],
        attention=[1],
        layers=1,
        timesteps=50,
        beta_start=1e-3,
        beta_end=0.1,
    )
    learner = Diffusion.load(section, context(1, 28, ()))
    seen = []
    learner.unet.register_forward_pre_hook(lambda _, inputs: seen.append(int(inputs[1])))
    images(learner, [1], 5)
    assert seen == [49, 39, 29, 19, 9]


def test_the_two_halves_of_collafuse_noise_a_picture_as_the_whole_does():
    """Noised up to the cut, then by the server's own steps: the share of the picture that is left is the
    whole schedule's."""
    section = Section(
        kind="diffusion",
        resolution=16,
        channels=[32, 32],
        attention=[1],
        layers=1,
        timesteps=100,
        server_from=30,
    )
    halves = CollaFuse.load(section, context(1, 28, ()))
    whole = Diffusion.load(section, context(1, 28, ())).schedule.alphas_cumprod
    client, server = halves.client.schedule.alphas_cumprod, halves.server.schedule.alphas_cumprod
    assert torch.allclose(client, whole[:30], rtol=1e-5)
    assert torch.allclose(client[-1] * server, whole[30:], rtol=1e-4)
    batch, _ = halves.blank_batch()
    batch.images, batch.cut_noise = torch.ones_like(batch.images), torch.zeros_like(batch.images)
    cut_images = run(halves.stages[:1], inputs(batch))["cut_images"]
    assert torch.allclose(cut_images, client[-1].sqrt().expand_as(cut_images))
    assert images(halves, [3, 4], 4).shape == (2, 3, 16, 16)
    # whatever its neighbours
    assert torch.allclose(images(halves, [3, 4], 4)[1:], images(halves, [4], 4), atol=1e-3)
