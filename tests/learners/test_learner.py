"""What a learner of one's own has to say, and what it then has."""

import dataclasses
import re
import textwrap

import numpy as np
import pytest
import torch

from fedray import engine
from fedray.data import DatasetInfo, open_source
from fedray.learners.contexts import LearnerContext
from fedray.learners.learner import Learner
from fedray.learners.losses import cross_entropy, squared_error, weighted_mean
from fedray.learners.stages import inputs
from fedray.planning.plan import plan
from fedray.runs.folder import RunFolder
from fedray.scenario import ScenarioError
from fedray.scenario.base import Refused
from fedray.scenario.data import FashionMnistMini
from fedray.scenario.model_section import ModelSection
from fedray.scenario.topology import Split
from fedray.terminal import Quiet
from fedray.tuning.tunings import tuning
from tests.helpers import garments, job_of, rows
from tests.learners.own_learner import CountlessSection, MaskedPixels, Segmenter, SegmenterSection

GARMENTS = FashionMnistMini(kind="fashion_mnist_mini", partition={"kind": "iid"})
SPLIT = Split(kind="split", cut="first", tail="loss")
BOLD = {"training.local_steps": 8, "training.optimizer.learning_rate": 0.5}
GREY = LearnerContext(DatasetInfo(1, 28, [str(k) for k in range(10)]))


def own(tmp_path, section, changes=None, **sections):
    """A checked scenario whose model is somebody's own."""
    loaded = job_of(garments(tmp_path, changes))[0]
    scenario = loaded.scenario.model_copy(update={"model": section} | sections)
    return dataclasses.replace(loaded, scenario=scenario)


def ran(loaded, folder):
    return engine.run(loaded, RunFolder.create(folder, loaded), [Quiet()])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    loaded = own(folder, SegmenterSection(), BOLD)
    return folder / "run", ran(loaded, folder / "run")


def test_the_example_of_the_docstring_trains_to_tell_garments_apart():
    text = textwrap.dedent(Learner.__doc__.split("Softmax regression:\n")[1].split("Attributes:")[0])
    names = {}
    exec(text, names)
    made, samples = names["Softmax"].load(ModelSection(kind="softmax"), GREY), open_source(GARMENTS, None)
    for p in made.parts["linear"].parameters():
        p.requires_grad_(True)
    made.prepare_training(False)
    before = made.measure(samples, np.arange(500))["eval_loss"]
    optimizer = torch.optim.SGD(made.parts["linear"].parameters(), 0.01)
    shard = made.encode(samples, np.arange(500))
    for _ in range(30):
        optimizer.zero_grad()
        made.loss(made.draw(shard, np.arange(500), torch.Generator())).backward()
        optimizer.step()
    assert before > 2
    assert made.measure(samples, np.arange(500))["eval_loss"] < before / 2


def test_the_example_of_the_docstring_is_at_most_25_lines():
    text = textwrap.dedent(Learner.__doc__.split("Softmax regression:\n")[1].split("Attributes:")[0])
    assert len([line for line in text.splitlines() if line.strip()]) <= 25


def test_a_learner_of_ones_own_trains_and_measures_what_it_says(trained):
    folder, result = trained
    assert result["status"] == "done"
    assert result["final"]["eval_iou"] > result["baseline"]["eval_iou"] + 0.2
    assert result["final"]["eval_loss"] < result["baseline"]["eval_loss"]
    assert {row["clients"] for row in rows(folder / "metrics.jsonl")} == {5}


def test_its_samples_and_its_weights_lie_in_the_run_folder(trained):
    folder, _ = trained
    assert (folder / "samples" / "round-0002.png").is_file()
    again = Segmenter.from_export(SegmenterSection(), GREY, folder / "model")
    untrained = Segmenter.load(SegmenterSection(), GREY)
    assert not torch.equal(again.last.weight, untrained.last.weight)
    assert not torch.equal(again.normal.running_mean, untrained.normal.running_mean)  # means travelled too


def test_a_damaged_export_is_an_error_that_names_a_tensor(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(trained[0] / "model" / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if k != "0.weight"}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"0\.weight"):
        Segmenter.from_export(SegmenterSection(), GREY, tmp_path)


def test_its_work_is_counted_on_the_meta_device(tmp_path):
    planned = plan(own(tmp_path, SegmenterSection()))
    pixels = 28 * 28
    forwards = 2 * pixels * (4 * 9 + 4)
    # backwards, the first layer has no gradient of its input
    assert planned["flops_per_sample"] == forwards + 2 * pixels * (4 * 9 + 2 * 4)
    assert planned["trainable_parameters"] == 4 * 9 + 4 + 4 + 4 + 4 + 1


def test_a_learner_that_cannot_be_counted_says_its_work_itself(tmp_path):
    assert plan(own(tmp_path, CountlessSection()))["flops_per_sample"] == 1e6


def test_it_is_cut_where_it_names_stages_and_learns_so_too(tmp_path):
    loaded = own(tmp_path, SegmenterSection(), BOLD, topology=SPLIT)
    result = ran(loaded, tmp_path / "run")
    assert result["status"] == "done"
    assert result["final"]["eval_loss"] < result["baseline"]["eval_loss"]


def test_a_learner_without_stages_is_not_cut(tmp_path):
    with pytest.raises(ScenarioError, match="got split for a model without stages"):
        plan(own(tmp_path, CountlessSection(), topology=SPLIT))


def test_weights_of_samples_scale_their_losses_and_ones_change_nothing():
    made = Segmenter.load(SegmenterSection(), GREY)
    batch, _ = made.blank_batch()
    batch = MaskedPixels(torch.randn(4, 1, 28, 28), torch.ones(4, 1, 28, 28))
    with torch.no_grad(), made.evaluating():
        each = [made.loss(MaskedPixels(batch.images[i : i + 1], batch.masks[i : i + 1])) for i in range(4)]
        ones = made.loss(dataclasses.replace(batch, weight=torch.ones(4)))
        halved = made.loss(dataclasses.replace(batch, weight=torch.tensor([2.0, 0.0, 0.0, 0.0])))
        assert made.loss(batch).item() == pytest.approx(ones.item())
    assert ones.item() == pytest.approx(sum(x.item() for x in each) / 4)
    assert halved.item() == pytest.approx(2 * each[0].item() / 4)


def test_a_field_that_is_none_is_no_input():
    assert set(inputs(MaskedPixels(torch.zeros(1), torch.zeros(1)))) == {"images", "masks"}


def test_losses_with_weights_of_one_are_those_without():
    logits, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    tokens, targets = torch.randn(3, 7, 5), torch.randint(0, 5, (3, 7))
    targets[:, -1] = -100
    for plain, weighted in (
        (cross_entropy(logits, labels), cross_entropy(logits, labels, torch.ones(6))),
        (cross_entropy(tokens, targets), cross_entropy(tokens, targets, torch.ones(3))),
        (squared_error(tokens, 2 * tokens), squared_error(tokens, 2 * tokens, torch.ones(3))),
    ):
        assert plain.item() == pytest.approx(weighted.item(), rel=1e-6)
    alone = cross_entropy(logits[:1], labels[:1])
    assert cross_entropy(logits, labels, 6 * torch.eye(6)[0]).item() == pytest.approx(alone.item())
    assert weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.5])).item() == 1.25


def test_weights_come_from_the_seed_frozen_and_on_meta_there_are_none():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, same = (Segmenter.load(SegmenterSection(), GREY) for _ in range(2))
    other = Segmenter.load(SegmenterSection(), dataclasses.replace(GREY, seed=1))
    meta = Segmenter.load(SegmenterSection(), dataclasses.replace(GREY, device=torch.device("meta")))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.first.weight, same.first.weight)
    assert not torch.equal(one.first.weight, other.first.weight)
    assert not any(p.requires_grad for p in one.parts["network"].parameters())
    assert all(p.is_meta for p in meta.parts["network"].parameters())


def test_running_means_travel_where_what_they_normalise_for_trains():
    from fedray.scenario.tuning import Partial

    made = Segmenter.load(SegmenterSection(), GREY)
    assert made.travelling_buffers() == {}
    tuning(Partial(kind="partial", patterns=["network.2.*"]), 0).apply(made)
    assert made.travelling_buffers() == {}
    tuning(Partial(kind="partial", patterns=["network.1.*"]), 0).apply(made)
    assert list(made.travelling_buffers()) == ["network.1.running_mean", "network.1.running_var"]


def test_images_without_a_size_of_their_own_ask_for_a_resolution():
    context = dataclasses.replace(GREY, dataset=DatasetInfo(1, None, ()))
    with pytest.raises(Refused, match=re.escape("model.resolution")):
        Segmenter.load(SegmenterSection(), context).refuse_no_size()
