import pytest
import torch

from fedray.executors.optimizer import FlatOptimizer
from fedray.scenario.training import AdamW, Sgd

KINDS = {
    "adamw": (AdamW(kind="adamw", learning_rate=1e-3), lambda p: torch.optim.AdamW([p], lr=1e-3)),
    "sgd": (Sgd(kind="sgd", learning_rate=0.1), lambda p: torch.optim.SGD([p], lr=0.1)),
    "sgd with momentum": (
        Sgd(kind="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_have_the_bits_of_torchs_own_optimizer_and_a_restart_forgets(kind):
    section, make = KINDS[kind]
    weights, gradient = torch.randn(1000), torch.zeros(1000)
    theirs = torch.nn.Parameter(weights.clone())
    ours = FlatOptimizer(section, weights, gradient)
    for _ in range(2):
        optimizer = make(theirs)
        ours.restart()
        for _ in range(5):
            gradient.copy_(torch.randn(1000))
            theirs.grad = gradient.clone()
            ours.step()
            optimizer.step()
    assert torch.equal(weights, theirs.data)
