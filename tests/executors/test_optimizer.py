"""Optimizers over flat weights, against torch's and bitsandbytes' own classes."""

import inspect
import textwrap

import pytest
import torch
from pydantic import TypeAdapter

import fedray
from fedray.executors.optimizer import FlatOptimizer
from fedray.scenario import ScenarioError
from fedray.scenario.optimizer import Optimizer as AnyOptimizer
from fedray.scenario.optimizer import OptimizerSection
from tests.executors.test_groups import a_round, training
from tests.helpers import garments, job_of

CLASSES = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "rmsprop": torch.optim.RMSprop,
}
MOMENTUM = {"kind": "sgd", "momentum": 0.9, "weight_decay": 0.1}
OPTIONS = [
    {"kind": "sgd", "learning_rate": 0.1},
    MOMENTUM,
    MOMENTUM | {"dampening": 0.5},
    MOMENTUM | {"nesterov": True},
    {"kind": "adam", "weight_decay": 0.1, "amsgrad": True},
    {"kind": "adamw", "weight_decay": 0.1, "beta1": 0.8, "amsgrad": True},
    {"kind": "adamax", "beta2": 0.99, "weight_decay": 0.1},
    {"kind": "nadam", "momentum_decay": 0.01},
    {"kind": "nadam", "weight_decay": 0.1, "decoupled_weight_decay": True},
    {"kind": "radam", "weight_decay": 0.1, "beta2": 0.9},
    {"kind": "radam", "weight_decay": 0.1, "decoupled_weight_decay": True},
    {"kind": "adagrad", "lr_decay": 0.1, "initial_accumulator_value": 0.2, "weight_decay": 0.1},
    {"kind": "adadelta", "rho": 0.8, "weight_decay": 0.1},
    {"kind": "rmsprop", "momentum": 0.9, "centered": True, "weight_decay": 0.1},
]
WHAT_TORCH_HAS = [{"kind": kind} for kind in CLASSES]


def section_of(options):
    return TypeAdapter(AnyOptimizer).validate_python({"learning_rate": 1e-2} | options)


def theirs(section, parameters):
    """torch's own optimizer, with a section's every option."""
    own = section.model_dump(exclude={"kind", "learning_rate", "beta1", "beta2"})
    if "beta1" in section.model_fields_set or hasattr(section, "beta1"):
        own["betas"] = (section.beta1, section.beta2)
    return CLASSES[section.kind](parameters, lr=section.learning_rate, **own)


@pytest.mark.parametrize("options", [*OPTIONS, *WHAT_TORCH_HAS], ids=lambda o: " ".join(map(str, o.values())))
def test_steps_have_the_bits_of_torchs_own_optimizer_and_a_restart_forgets(options):
    section = section_of(options)
    weights, gradient = torch.randn(1000), torch.zeros(1000)
    parameter = torch.nn.Parameter(weights.clone())
    ours = FlatOptimizer(section, weights, gradient)
    for _ in range(2):
        optimizer = theirs(section, [parameter])
        ours.restart()
        for factor in (1.0, 0.5, 0.25, 0.25, 1.0, 1.0, 1.0):
            gradient.copy_(torch.randn(1000))
            parameter.grad = gradient.clone()
            ours.step(factor)
            optimizer.param_groups[0]["lr"] = section.learning_rate * factor
            optimizer.step()
    assert torch.equal(weights, parameter.data)


@pytest.mark.parametrize("kind", sorted(CLASSES.keys() - {"sgd"}))
def test_defaults_are_torchs(kind):
    section = section_of({"kind": kind})
    expected = inspect.signature(CLASSES[kind]).parameters
    for name, value in section.model_dump(exclude={"kind", "learning_rate", "beta1", "beta2"}).items():
        assert value == expected[name].default, name
    if "betas" in expected:
        assert (section.beta1, section.beta2) == expected["betas"].default


@pytest.mark.parametrize(
    "topology", [{"kind": "parallel"}, {"kind": "split", "cut": "conv2", "tail": "loss"}]
)
def test_groups_of_every_kind_train_beside_each_other_also_in_a_split(topology, tmp_path):
    groups = [
        ([f"network.{i}.*"], {"kind": kind, "learning_rate": 1e-3})
        for i, kind in ((0, "radam"), (3, "nadam"))
    ]
    main = {"kind": "rmsprop", "learning_rate": 1e-3, "momentum": 0.5, "eps": 1e-4}
    executor = a_round(garments(tmp_path, training(main, groups) | {"topology": topology}))
    start = executor.layout.tensors(executor.initial)
    end = executor.layout.tensors(executor.buffer)
    assert all(end[name].isfinite().all() and not torch.equal(end[name], start[name]) for name in end)


def lion():
    """The example of fedray.Optimizer's docstring."""
    _, example = inspect.getdoc(fedray.Optimizer).split("Algorithm 2):\n")
    names = {}
    exec(textwrap.dedent(example), names)
    return names["Lion"]


def test_the_docstrings_lion_is_the_papers():
    made = lion()
    assert issubclass(made.Section, OptimizerSection)
    section = made.Section(kind="mine:Lion", learning_rate=0.1, weight_decay=0.5)
    optimizer = made(section)
    w = torch.tensor([1.0, -2.0, 3.0])
    first, second = torch.tensor([4.0, -1.0, 0.5]), torch.tensor([-0.03, -1.0, -2.0])
    optimizer.step([w], [first], 0.1)
    mean = 0.01 * first  # 0.99 of nothing, and 0.01 of the gradient
    by_hand = torch.tensor([1.0, -2.0, 3.0]) * 0.95 - 0.1 * first.sign()
    torch.testing.assert_close(w, by_hand)
    optimizer.step([w], [second], 0.1)
    torch.testing.assert_close(w, by_hand * 0.95 - 0.1 * (0.9 * mean + 0.1 * second).sign())


def test_nesterovs_momentum_needs_one_and_the_8_bit_optimizer_its_library(tmp_path, monkeypatch):
    refused = {
        "training.optimizer.nesterov: got true with momentum 0 and dampening 0, expected a momentum": {
            "kind": "sgd",
            "nesterov": True,
        },
        "training.optimizer.kind: got adamw_8bit without bitsandbytes, expected it installed: pip install": {
            "kind": "adamw_8bit"
        },
    }
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for message, optimizer in refused.items():
        with pytest.raises(ScenarioError) as error:
            job_of(garments(tmp_path, {"training.optimizer": {"learning_rate": 0.1} | optimizer}))
        assert message in str(error.value)


@pytest.mark.parametrize("numbers", [1000, 5000])
def test_the_8_bit_optimizer_has_the_bits_of_bitsandbytes_own(numbers):
    optim = pytest.importorskip("bitsandbytes").optim
    section = section_of({"kind": "adamw_8bit", "weight_decay": 0.1})
    weights, gradient = torch.randn(numbers), torch.zeros(numbers)
    parameter = torch.nn.Parameter(weights.clone())
    ours = FlatOptimizer(section, weights, gradient)
    optimizer = optim.AdamW8bit([parameter], lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        gradient.copy_(torch.randn(numbers))
        parameter.grad = gradient.clone()
        ours.step()
        optimizer.step()
    assert torch.equal(weights, parameter.data)
