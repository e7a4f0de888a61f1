import pytest
import torch

from fedray import shipped
from fedray.data.fashion_mnist import garments as read_garments
from fedray.evaluation import image_codes
from fedray.evaluation.similarity import psnr
from fedray.evaluation.transmission import Sent, by_gaussian_code, by_linear
from fedray.learners.codec import Transmission
from fedray.learners.codec_channels import Rayleigh
from fedray.learners.codec_linear import LinearCodec, Moments, capacity
from fedray.scenario.codec import RayleighSection

USES = 98
RATIOS = (-5.0, 0.0, 5.0, 10.0, 15.0, 20.0)


def tensor(split):
    array = read_garments(shipped.HERE / "fashion_mnist_mini", split).array
    return torch.tensor(array).float() / 255


@pytest.fixture(scope="module")
def linear():
    moments = Moments(1, 28)
    moments.add(tensor("train").flatten(1))
    return LinearCodec.of(moments, USES)


@pytest.fixture(scope="module")
def sent(linear):
    return Sent(tensor("test"), linear.mean.view(1, 28, 28), seed=0)


def batch(images, snr_db, gain=None):
    draws = torch.Generator().manual_seed(5)
    n = len(images)
    noise = torch.randn(n, 2 * USES, generator=draws)
    return Transmission(images, torch.full((n,), snr_db), torch.ones(n) if gain is None else gain, noise)


def quality(arrived, sent):
    return float(psnr(arrived, sent.images).mean())


def test_the_linear_analog_codec_on_garments_has_the_psnr_of_an_independent_program(linear, sent):
    """services.md, Sec. 4: numpy, by bisection of nu; 500 images, k = 98."""
    made = [quality(by_linear(linear, batch(sent.images, snr_db)), sent) for snr_db in RATIOS]
    assert made == pytest.approx([15.8, 17.7, 20.0, 22.2, 23.6, 24.2], abs=0.1)


def test_the_same_in_slow_rayleigh_fading(linear, sent):
    """The same, there with one draw of 500 gains, here the mean of four."""
    channel = Rayleigh(RayleighSection(kind="rayleigh"))
    draws = torch.Generator().manual_seed(0)
    means = []
    for snr_db in RATIOS:
        faded = (by_linear(linear, batch(sent.images, snr_db, channel.gains(500, draws))) for _ in range(4))
        means.append(sum(quality(arrived, sent) for arrived in faded) / 4)
    assert means == pytest.approx([15.0, 16.7, 18.8, 21.1, 22.6, 23.6], abs=0.3)


def test_the_bound_of_gaussian_sources_on_garments_is_that_of_an_independent_program(linear, sent):
    made = [quality(by_gaussian_code(linear, USES * capacity(snr_db), sent), sent) for snr_db in RATIOS]
    assert made == pytest.approx([17.5, 19.5, 21.4, 23.2, 24.8, 26.4], abs=0.1)


def test_files_fall_off_a_cliff_below_which_the_mean_image_is_left(sent):
    """The table's JPEG has 18.8 and 22.0 at 10 and 20 dB and no room at 5 dB, its WebP 26.7 at 20 dB; other
    builds of the libraries differ by tenths."""
    budgets = [USES * capacity(snr_db) for snr_db in (5.0, 10.0, 20.0)]
    jpeg = [quality(images, sent) for images in image_codes.coded(sent.images, "JPEG", budgets, sent.mean)]
    assert jpeg == pytest.approx([10.9, 18.8, 22.0], abs=0.4)
    (webp,) = image_codes.coded(sent.images, "WEBP", budgets[2:], sent.mean)
    assert quality(webp, sent) == pytest.approx(26.7, abs=0.4)


def test_a_file_of_the_best_quality_that_fits_fits_and_the_next_one_does_not():
    file = image_codes.File(tensor("test")[:25], "JPEG")
    bits = 25 * USES * capacity(15.0)
    file.best(bits)
    best = max(quality for quality, (size, _) in file.made.items() if size <= bits)
    assert file.at(best + 1)[0] > bits
    assert file.best(10.0) is None


def test_pictures_come_back_from_a_file_in_their_places_whatever_their_number_and_colours():
    images = torch.rand(7, 3, 16, 16).mean((2, 3), keepdim=True).expand(-1, -1, 16, 16)
    (arrived,) = image_codes.coded(images, "WEBP", [1e6], torch.zeros(3, 16, 16))
    assert arrived.shape == images.shape
    assert float((arrived - images).abs().max()) < 0.05


def test_a_code_for_the_mean_ratio_is_lost_where_the_channel_is_worse(sent):
    """services.md: 23.2 dB from 10 dB on and 10.9 below average 15.4 under slow Rayleigh fading: e^-1 of
    images arrive."""
    gain = Rayleigh(RayleighSection(kind="rayleigh")).gains(500, torch.Generator().manual_seed(3))
    arrived = sent.outage(batch(sent.images, 10.0, gain), sent.images)
    lost = (arrived == sent.mean).flatten(1).all(1)
    assert torch.equal(lost, gain < 1)
    assert float(lost.float().mean()) == pytest.approx(1 - 0.3679, abs=0.05)
