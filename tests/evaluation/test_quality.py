import pytest
import torch

from fedray import shipped
from fedray.evaluation import judge as judges
from fedray.evaluation import quality


@pytest.fixture(scope="module")
def judge():
    return judges.load(shipped.HERE / "garments.safetensors")


@pytest.fixture(scope="module")
def garments():
    from fedray.data.fashion_mnist import garments

    samples = garments(shipped.HERE / "fashion_mnist_mini", "test")
    pixels = torch.from_numpy(samples.pixels(slice(None), 32).copy()).float() / 255
    return pixels.expand(-1, 3, -1, -1)


def test_the_distance_is_heusels_formula_on_the_judges_features(judge, garments):
    real, made = garments[:250], garments[250:].flip(-1)
    a, b = (judges.look(judge, x)[0].double() for x in (real, made))
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(ca @ cb).sqrt().real.sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + ca.trace() + cb.trace() - 2 * root
    assert quality.measure(judge, real, made, 0)["eval_classifier_fid"] == pytest.approx(
        float(expected), rel=1e-2
    )


def test_real_against_real_is_near_and_noise_is_far_in_every_measure(judge, garments):
    near = quality.measure(judge, garments[:250], garments[250:], 0)
    far = quality.measure(judge, garments[:250], torch.rand(250, 3, 32, 32), 0)
    assert far["eval_classifier_fid"] > 5 * near["eval_classifier_fid"]
    assert far["eval_kid"] > 5 * abs(near["eval_kid"])
    assert near["eval_precision"] > 0.6
    assert near["eval_recall"] > 0.6
    assert far["eval_recall"] < 0.1
    assert near["eval_quality_images"] == 250


def test_one_garment_again_and_again_is_precise_but_recalls_nothing(judge, garments):
    same = quality.measure(judge, garments[:100], garments[:1].expand(100, -1, -1, -1), 0)
    assert same["eval_precision"] == 1
    assert same["eval_recall"] < 0.2


def test_kid_draws_from_its_seed_alone(judge, garments):
    torch.manual_seed(5)
    first = quality.measure(judge, garments[:100], garments[100:200], 1)
    torch.manual_seed(6)
    assert quality.measure(judge, garments[:100], garments[100:200], 1) == first
    assert quality.measure(judge, garments[:100], garments[100:200], 2)["eval_kid"] != first["eval_kid"]


def test_a_point_is_covered_within_the_third_neighbours_radius_and_not_beyond():
    line = torch.arange(10.0)[:, None]  # the third neighbour of an inner point is 2 away, of an end 3
    assert quality.covered(torch.tensor([[-2.9]]), line) == 1
    assert quality.covered(torch.tensor([[-3.1]]), line) == 0
    assert quality.covered(torch.tensor([[4.5], [99.0]]), line) == 0.5
