import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedray.data import DatasetInfo
from fedray.learners.classifier import Classifier, LabelledImages, build
from fedray.learners.contexts import LearnerContext
from fedray.scenario.model import Classifier as Section

TEN = [str(k) for k in range(10)]


def learner(dataset=DatasetInfo(1, 28, TEN), **changes):  # noqa: B008 (it is frozen)
    return Classifier.load(Section(kind="classifier", **changes), LearnerContext(dataset))


def test_the_small_network_has_the_225034_parameters_that_others_are_measured_with():
    assert sum(p.numel() for p in learner().network.parameters()) == 225_034


def test_lenet_has_the_768_features_and_the_initial_weights_of_zhu_et_al():
    made = learner(DatasetInfo(3, 32, TEN), network="lenet")
    assert made.network[-1].in_features == 768
    weights = torch.cat([p.flatten() for p in made.network.parameters()])
    assert 0.49 < float(weights.abs().max()) <= 0.5


def test_resnet18_is_torchvisions_own_and_its_file_opens_there(tmp_path):
    from torchvision.models import resnet18

    ours = learner(DatasetInfo(3, 32, TEN), network="resnet18")
    ours.save(tmp_path)
    theirs = resnet18(num_classes=10)
    theirs.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(theirs.eval()(images), ours.network.eval()(images))
    assert json.loads((tmp_path / "config.json").read_text())["labels"] == TEN


def test_group_normalisation_leaves_no_running_means():
    made = learner(DatasetInfo(3, 32, TEN), network="resnet18", norm="group")
    assert not [name for name, _ in made.network.named_buffers()]


@pytest.mark.parametrize("network", ["cnn", "lenet", "resnet18"])
def test_a_batch_of_one_trains(network):
    made = learner(network=network, resolution=32)
    made.network.requires_grad_(True)
    made.prepare_training(False)
    images = torch.zeros(1, made.channels, 32, 32)
    loss = made.loss(LabelledImages(images, torch.tensor([3])))
    loss.backward()
    assert torch.isfinite(loss)
    assert made.network.training


def test_the_test_set_gives_accuracy_and_mean_cross_entropy_whatever_the_chunks():
    from fedray import shipped
    from fedray.data.fashion_mnist import garments

    made, samples = learner(), garments(shipped.HERE / "fashion_mnist_mini", "test")
    accuracy, loss = made.test(samples, np.arange(len(samples)))
    images = torch.from_numpy(samples.array.copy()).float() / 127.5 - 1
    logits, labels = made.network(images), torch.from_numpy(samples.labels)
    assert accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def test_grey_pictures_are_three_equal_channels_where_the_network_wants_colour():
    made = learner(network="resnet18", resolution=32)
    grey = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    seen = made._scaled(grey)
    assert seen.shape == (2, 3, 32, 32)
    assert torch.equal(seen[:, 0], seen[:, 2])
    assert torch.allclose(seen[:, :1], grey.float() / 127.5 - 1)


def test_networks_are_built_for_the_size_they_are_given():
    for size in (28, 32, 64):
        assert build(Section(kind="classifier"), 3, size, 7)(torch.zeros(2, 3, size, size)).shape == (2, 7)
