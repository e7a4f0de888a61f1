"""A weight per sample in a batch: what it does to losses, gradients and steps."""

import numpy as np
import pytest
import torch

from fedray.executors.serial import SerialExecutor
from fedray.learners.learners import load
from fedray.learners.losses import cross_entropy, squared_error, weighted_mean
from fedray.network.radio import Radio
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.scenario import ScenarioError
from tests.helpers import begin, garments, job_of

WEIGHTS = torch.tensor([2.0, 0.0, 0.5, 1.5])
LEARNERS = {
    "classifier": {},
    "diffusion": {
        "model": {"kind": "diffusion", "resolution": 16, "channels": [32, 64], "attention": [], "layers": 1}
    },
    "masked_image": {
        "model": {
            "kind": "transformer", "objective": "masked_image", "width": 16, "layers": 1, "heads": 2,
            "patch": 7,
        }
    },
    "masked_language": {
        "data": {"kind": "text", "path": "shipped:shakespeare", "length": 64, "partition": {"kind": "iid"}},
        "model": {
            "kind": "transformer", "objective": "masked_language", "width": 16, "layers": 1, "heads": 2,
        },
    },
}  # fmt: skip


def made(tmp_path, name):
    """A learner of ours whose weights all train, and four of its samples as a batch."""
    _, job = job_of(garments(tmp_path, LEARNERS[name]))
    learner = load(job.scenario, job.folder, torch.device("cpu"), torch.float32, job.dataset)
    for part in learner.parts.values():
        part.requires_grad_(True)
    learner.prepare_training(False)
    shard = learner.encode(job.dataset.train, np.arange(4))
    return learner, learner.draw(shard, np.arange(4), torch.Generator().manual_seed(0))


def only(batch, indices, weight=None):
    """Some of a batch's samples."""
    fields = {k: v[indices] for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
    return type(batch)(**fields | ({} if weight is None else {"weight": weight}))


def gradient(learner, *losses):
    """Of a sum of losses, [parameters]."""
    parameters = [p for part in learner.parts.values() for p in part.parameters()]
    given = torch.autograd.grad(sum(losses), parameters, allow_unused=True)
    return torch.cat([torch.zeros(0), *(g.flatten() for g in given if g is not None)])


def near(one, other):
    return float((one - other).norm() / other.norm()) < 1e-5


@pytest.mark.parametrize("name", LEARNERS)
def test_weights_of_one_change_neither_loss_nor_gradient(name, tmp_path):
    learner, batch = made(tmp_path, name)
    ones = only(batch, slice(None), torch.ones(4))
    assert learner.loss(ones).item() == pytest.approx(learner.loss(batch).item(), rel=1e-5)
    assert near(gradient(learner, learner.loss(ones)), gradient(learner, learner.loss(batch)))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_weighted_gradient_is_the_loop_over_samples_each_times_its_weight(name, tmp_path):
    learner, batch = made(tmp_path, name)
    together = gradient(learner, learner.loss(only(batch, slice(None), WEIGHTS)))
    each = [weight / 4 * learner.loss(only(batch, [i])) for i, weight in enumerate(WEIGHTS)]
    assert near(together, gradient(learner, *each))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_sample_that_counts_twice_beside_one_that_counts_nothing_is_the_same_as_a_repeated_one(
    name, tmp_path
):
    learner, batch = made(tmp_path, name)
    weighted = only(batch, slice(None), torch.tensor([2.0, 0.0, 1.0, 1.0]))
    repeated = only(batch, [0, 0, 2, 3])
    assert learner.loss(weighted).item() == pytest.approx(learner.loss(repeated).item(), rel=1e-5)
    assert near(gradient(learner, learner.loss(weighted)), gradient(learner, learner.loss(repeated)))


def test_tokens_of_texts_of_any_length_have_their_texts_weight_and_ones_change_nothing():
    draws = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(4, 7, 5, generator=draws), torch.randint(5, (4, 7), generator=draws)
    for text, length in enumerate((7, 1, 3, 0)):
        targets[text, length:] = -100
    plain = cross_entropy(logits, targets)
    assert cross_entropy(logits, targets, torch.ones(4)).item() == pytest.approx(plain.item(), rel=1e-6)
    each = [
        w * n * cross_entropy(logits[i : i + 1], targets[i : i + 1])
        for i, (w, n) in enumerate(zip((2.0, 0.5, 3.0), (7, 1, 3), strict=True))
    ]
    weighted = cross_entropy(logits, targets, torch.tensor([2.0, 0.5, 3.0, 9.0]))
    assert weighted.item() == pytest.approx(sum(each).item() / 11, rel=1e-6)


def test_losses_are_their_closed_forms():
    per_sample, weight = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([3.0, 0.0, 1.0])
    assert weighted_mean(per_sample).item() == 3.0
    assert weighted_mean(per_sample, weight).item() == pytest.approx(8 / 3)
    values = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    assert squared_error(values, torch.zeros(2, 2), torch.tensor([1.0, 3.0])).item() == (2 + 3 * 1) / 2
    # two classes alike: each judged token costs ln 2
    logits, targets = torch.zeros(2, 3, 2), torch.tensor([[0, 1, -100], [1, -100, -100]])
    loss = cross_entropy(logits, targets, torch.tensor([1.0, 4.0])).item()
    assert loss == pytest.approx((1 * 2 + 4 * 1) / 3 * np.log(2), rel=1e-6)
    nothing = cross_entropy(logits, torch.full((2, 3), -100), torch.ones(2)).item()
    assert nothing == 0.0


# --- in real rounds, of a learner of a user's own

LEARNER = '''"""A linear model whose brighter images count more."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import fedray
from fedray.learners.losses import squared_error
from fedray.learners.pictures import scaled
from fedray.learners.stages import Stage


@dataclass
class Images:
    images: Tensor
    targets: Tensor
    weight: Tensor | None = None


class Linear(fedray.Learner):
    def __init__(self, section, context):
        super().__init__(section, context)
        self.first, self.last = nn.Linear(784, 8), nn.Linear(8, 1)
        self.parts = {"net": nn.ModuleList([self.first, self.last])}
        loss = Stage("loss", ("x", "targets"), ("loss",), squared_error, optional=("weight",))
        pieces = [
            Stage("first", ("images",), ("x",), self.first, (self.first,)),
            Stage("last", ("x",), ("x",), self.last, (self.last,)),
        ]
        self.stages = self.staged(pieces, loss)

    def draw(self, shard, indices, generator):
        i = torch.from_numpy(indices)
        images = scaled(shard.images[i]).flatten(1)
        return Images(images, shard.labels[i].float()[:, None])


class Weighted(Linear):
    def draw(self, shard, indices, generator):
        batch = super().draw(shard, indices, generator)
        return replace(batch, weight=(batch.targets[:, 0] == 3) * 2.0 + 0.5)


class Secretive(Weighted):
    """Its blank batch says nothing of weights."""

    def blank_batch(self):
        return Images(torch.zeros(2, 784, device=self.device), torch.zeros(2, 1, device=self.device)), 2


class ByHand(Linear):
    def loss(self, batch):
        weight = (batch.targets[:, 0] == 3) * 2.0 + 0.5
        errors = (self.last(self.first(batch.images)) - batch.targets)[:, 0] ** 2
        return sum(w * e for w, e in zip(weight, errors)) / len(errors)
'''
SPLIT = {"kind": "split", "cut": "first"}


def a_round(tmp_path, learner, topology=None):
    (tmp_path / "own_weights.py").write_text(LEARNER)
    changes = {
        "model": {"kind": f"own_weights:{learner}"},
        "topology": topology or {"kind": "parallel"},
        "data.partition": {"kind": "iid"},
        "population": {"clients": 2, "per_round": 2},
        "training.local_steps": 3,
        "training.optimizer.learning_rate": 1e-4,
        "training.clip_norm": 1e9,
    }
    _, job = job_of(garments(tmp_path, changes, f"{learner}.yaml"))
    executor = SerialExecutor(job)
    begin(executor)
    work = None
    if topology is not None:
        work = executor.workload().of(job.scenario, executor.shared.samples)
    schedule = schedule_round(job.scenario, Radio(job.scenario.network), 1, executor.shared, work)
    reports = list(executor.run_round(schedule))
    assert [report.failure for report in reports] == [None, None]
    return executor.layout.view(executor.buffer).clone(), [report.loss for report in reports]


def test_a_client_trains_with_the_weights_of_its_samples_as_a_loop_by_hand_does(tmp_path):
    ours, losses = a_round(tmp_path, "Weighted")
    theirs, their_losses = a_round(tmp_path, "ByHand")
    plain, _ = a_round(tmp_path, "Linear")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert losses == pytest.approx(their_losses, rel=1e-5)
    assert (ours - plain).abs().max() > 1e-4


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_in_a_split_weights_stay_with_the_loss_at_their_client_and_count(micro_batches, tmp_path):
    topology = SPLIT | {"tail": "loss", "variant": "splitfed_v1", "micro_batches": micro_batches}
    whole, _ = a_round(tmp_path, "Weighted")
    cut, _ = a_round(tmp_path, "Weighted", topology)
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-6)


def test_weights_that_a_server_with_the_loss_would_not_get_are_refused(tmp_path):
    topology = SPLIT | {"may_send": ["targets"]}
    a_round(tmp_path, "Linear", topology)
    (tmp_path / "own_weights.py").write_text(LEARNER)
    changes = {"model": {"kind": "own_weights:Weighted"}, "topology": topology}
    with pytest.raises(
        ScenarioError, match=r"topology\.tail: got first.* weight of each sample, expected a tail"
    ):
        plan(job_of(garments(tmp_path, changes))[0])


def test_weights_that_a_learner_s_blank_batch_does_not_tell_of_end_the_run_rather_than_be_lost(tmp_path):
    with pytest.raises(Exception, match="weight: got some where the server has the loss, expected a tail"):
        a_round(tmp_path, "Secretive", SPLIT | {"may_send": ["targets"]})
