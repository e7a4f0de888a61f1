import pytest
import torch
from PIL import Image

from fedray.evaluation import style
from fedray.learners.sheets import sheet


def page(red, green, blue, n=2):
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1).expand(n, 3, 8, 8)


def test_darkness_is_one_minus_luma():
    assert style.mean_darkness(page(1.0, 1.0, 1.0)) == pytest.approx(0, abs=1e-6)
    assert style.mean_darkness(page(0.0, 0.0, 0.0)) == 1
    assert style.mean_darkness(page(1.0, 0.0, 0.0)) == pytest.approx(1 - 0.2126)
    assert style.mean_darkness(page(0.0, 1.0, 0.0)) == pytest.approx(1 - 0.7152)
    half = torch.cat([page(0.0, 0.0, 0.0, 1), page(1.0, 1.0, 1.0, 3)])
    assert style.mean_darkness(half) == pytest.approx(0.25)
    assert (
        style.coverage_distance(half, page(0.5, 0.5, 0.5))
        == style.coverage_distance(page(0.5, 0.5, 0.5), half)
        == pytest.approx(0.25)
    )


def test_the_distance_of_features_is_between_their_means():
    a, b = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[1.0, 3.0], [1.0, 5.0], [1.0, 4.0]])
    assert style.feature_distance(a, b) == style.feature_distance(b, a) == pytest.approx(4.0)
    assert style.feature_distance(a, a.flip(0)) == 0


def test_recognised_is_the_share_of_right_verdicts():
    probabilities = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3], [1.0, 0.0, 0.0]])
    assert style.recognised(probabilities, torch.tensor([0, 2, 0, 0])) == 0.75


def test_the_longest_label_in_a_caption_counts():
    names = ["shirt", "t-shirt", "boot", "ankle boot", "bag"]
    captions = ["a photo of a T-shirt in ink", "a shirt", "an ankle boot", "one boot", "a bag beside"]
    assert style.labels_in(captions, names).tolist() == [1, 0, 3, 2, 4]
    for caption in ("a baggage", "", "shirts", "airbag"):
        with pytest.raises(ValueError, match="names none of the judge's labels"):
            style.labels_in([caption], names)


def test_a_grid_is_a_row_a_prompt(tmp_path):
    images = torch.arange(6).view(6, 1, 1, 1).expand(6, 3, 32, 32) / 10
    sheet(images, 3).save(tmp_path / "grid.png")
    grid = Image.open(tmp_path / "grid.png")
    assert grid.size == ((2 + 3 * 34) * 4, (2 + 2 * 34) * 4)
    shown = [
        grid.getpixel(((2 + 16 + c * 34) * 4, (2 + 16 + r * 34) * 4))[0] for r in range(2) for c in range(3)
    ]
    assert shown == [round(i / 10 * 255) for i in range(6)]
