"""Models of one or two numbers whose local updates have closed forms, and runs of them."""

import numpy as np

from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from tests.helpers import begun, garments

LEARNERS = '''"""Numbers that are to come to the labels of a client's samples."""

import torch
from torch import nn

import fedray


class Level(fedray.Learner):
    """A number w with the loss (w - t)^2 / 2, where t is a sample's label less 4.5."""

    flops_per_sample = 1.0

    def __init__(self, section, context):
        super().__init__(section, context)
        self.net = nn.ParameterDict({"w": nn.Parameter(torch.randn(1))})
        self.parts = {"net": self.net}

    def loss(self, batch):
        return ((self.level() - (batch.labels - 4.5)) ** 2).mean() / 2

    def level(self):
        return self.net["w"]


class Sum(Level):
    """Two, head + body, in the place of w."""

    def __init__(self, section, context):
        super().__init__(section, context)
        names = ("head", "body")
        self.net = nn.ParameterDict({name: nn.Parameter(torch.zeros(1)) for name in names})
        self.parts = {"net": self.net}

    def level(self):
        return self.net["head"] + self.net["body"]


class Halfway(fedray.Personal):
    """A client's own model is the mean of the last global one it trained and of its last own."""

    class Section(fedray.Personal.Section):
        keeps_state = True
        kept_models = 1

    def local_update(self, model):
        for batch in model.batches:
            model.step(batch)
        return {"own": (model.state.get("own", model.received) + model.numbers) / 2}

    def load(self, numbers, state):
        numbers.copy_(state.get("own", numbers))


class Forgetful(Halfway):
    class Section(fedray.Personal.Section):
        pass
'''
RATE = 0.25
WHOLE = {  # every step takes all of a client's samples: gradient descent
    "rounds": 2,
    "local_epochs": 2,
    "batch_size": 1_000_000,
    "clip_norm": None,
    "optimizer": {"kind": "sgd", "learning_rate": RATE},
}
LEVEL = {
    "model": {"kind": "toys:Level"},
    "population": {"clients": 4, "per_round": 4},
    "data.partition": {"kind": "shards", "per_client": 2},
    "training": WHOLE,
}
SUM = LEVEL | {"model": {"kind": "toys:Sum"}, "tuning": {"kind": "full", "local": ["net.head"]}}


def toy(folder, changes=None, name="toy.yaml"):
    """A scenario of LEVEL with changes, and the learners beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toys.py").write_text(LEARNERS)
    return garments(folder, LEVEL | (changes or {}), name)


def executed(file, rounds):
    """A serial executor after so many rounds."""
    executor = begun(file)
    for t in range(1, rounds + 1):
        play(executor, t)
    return executor


def play(executor, t):
    scenario = executor.job.scenario
    schedule = schedule_round(scenario, Radio(scenario.network), t, executor.shared)
    assert all(report.failure is None for report in executor.run_round(schedule))
    return schedule.clients


def targets(executor):
    """By client, the mean of what its samples want."""
    labels = executor.clients.samples.labels
    held = executor.clients.client_indices
    return {client: float(np.mean(labels[held[client]] - 4.5)) for client in held}


def weights(executor):
    """By client, its share of all samples."""
    held = executor.clients.client_indices
    total = sum(len(held[client]) for client in held)
    return {client: len(held[client]) / total for client in held}


def level(executor):
    """The global number."""
    return float(executor.layout.view(executor.buffer)[0])
