import pytest
import torch
import torch.nn.functional as F

from fedray.evaluation.inversion import invert, labels_of, share_of_labels, variation


def bias_gradient(labels, classes=10, seed=0):
    """Of the last layer's bias, for a mean over samples whose logits are small and random."""
    logits = 0.1 * torch.randn(len(labels), classes, generator=torch.Generator().manual_seed(seed))
    logits.requires_grad_(True)
    loss = F.cross_entropy(logits, torch.tensor(labels))
    return torch.autograd.grad(loss, logits)[0].sum(0)


@pytest.mark.parametrize("labels", [[3], [1, 7], [2, 2, 5], [0, 4, 4, 9]])
def test_the_last_layer_s_bias_tells_the_labels_whatever_the_scale_of_the_update(labels):
    assert labels_of(bias_gradient(labels), len(labels)) == labels
    assert labels_of(0.003 * bias_gradient(labels), len(labels)) == labels


def test_a_label_counts_as_often_as_it_was_guessed():
    assert share_of_labels([1, 1, 2], [1, 2, 2]) == pytest.approx(2 / 3)


def test_total_variation_is_that_of_a_checkerboard_and_of_a_plain_picture():
    board = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[None, None]
    assert float(variation(board)) == 2.0
    assert float(variation(torch.ones(1, 1, 2, 2))) == 0.0


def test_pictures_are_found_by_the_direction_of_a_linear_map_alone():
    picture = 2 * torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(1)) - 1
    picture /= picture.abs().max()
    through = torch.randn(9, 20, generator=torch.Generator().manual_seed(2))

    def simulated(x):
        return x.flatten() @ through

    found = invert(5 * simulated(picture), simulated, picture.shape, 400, 0.0, 0)
    assert float(F.cosine_similarity(found.flatten(), picture.flatten(), dim=0)) > 0.999
