import pytest
import torch

from fedray.evaluation.similarity import matched, psnr, ssim


def plain(*levels):
    """Pictures of one grey level each."""
    return torch.tensor(levels)[:, None, None, None].expand(-1, 1, 16, 16).contiguous()


def test_psnr_is_that_of_the_squared_error_and_100_db_of_equal_pictures():
    a = plain(0.2, 0.5, 0.5)
    b = plain(0.3, 0.0, 0.5)
    assert psnr(a, b).tolist() == pytest.approx([20.0, 6.0206, 100.0], abs=1e-3)


def test_ssim_of_plain_pictures_is_its_luminance_term():
    """Wang et al. 2004, Eq. 6 with C1 = 0.01^2; contrast and structure are 1."""
    expected = [(2 * a * b + 1e-4) / (a * a + b * b + 1e-4) for a, b in ((0.2, 0.6), (0.5, 0.5))]
    assert ssim(plain(0.2, 0.5), plain(0.6, 0.5)).tolist() == pytest.approx(expected, abs=1e-5)


def test_ssim_of_patterns_is_that_of_scikit_image():
    """structural_similarity of 0.26 with gaussian_weights, sigma 1.5, use_sample_covariance=False."""
    i, j = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    a = ((i * j) % 7 / 6)[None, None]
    b = ((i + 2 * j) % 5 / 4)[None, None]
    made = torch.cat([b, 0.7 * a + 0.3 * b])
    assert ssim(torch.cat([a, a]), made).tolist() == pytest.approx([-0.01991297, 0.87960535], abs=1e-6)


def test_pictures_are_matched_whatever_their_order_where_the_nearest_one_is_taken_twice():
    originals = plain(0.0, 0.4, 1.0)
    made = plain(0.9, 0.35, 0.3)
    assert matched(made, originals)[:, 0, 0, 0].tolist() == pytest.approx([0.3, 0.35, 0.9])
