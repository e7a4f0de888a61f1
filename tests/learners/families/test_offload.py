"""Text encoders that do not train leave the device between two uses. No GPU is needed: a second place is one
where weights cannot be computed with."""

import pytest
import torch
from torch import nn

from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.families import family
from fedray.learners.families.offload import HOST, Offload
from fedray.learners.learners import NO_DATA
from fedray.learners.text_to_image import TextToImage
from fedray.scenario.text_to_image import TextToImage as Section
from fedray.scenario.textual_inversion import TextualInversion
from fedray.scenario.tuning import Lora
from fedray.tuning.tunings import tuning
from tests.helpers import PROMPT, run, tiny
from tests.learners.families.tiny_bases import BASES

GPU = torch.device("cuda")


class OutOfReach(Offload):
    """Takes weights away instead of moving them: whatever computes with offloaded networks fails."""

    made: list["OutOfReach"] = []

    def __init__(self, networks, device):
        super().__init__(networks, device)
        if device.type == "meta":  # nothing is computed there
            return
        self.device = GPU
        self.kept = {}
        self.moves = []
        OutOfReach.made.append(self)

    def _move(self, device):
        self.moves.append(device.type)
        for module in (module for network in self.networks for module in network.modules()):
            if device == HOST:
                self.kept[module] = dict(module._parameters), dict(module._buffers)
                for tensors in (module._parameters, module._buffers):
                    for name, tensor in tensors.items():
                        away = None if tensor is None else tensor.detach().to("meta")
                        parameter = tensors is module._parameters and away is not None
                        tensors[name] = nn.Parameter(away, requires_grad=False) if parameter else away
            else:
                parameters, buffers = self.kept.pop(module)
                module._parameters.update(parameters)
                module._buffers.update({n: None if b is None else b.clone() for n, b in buffers.items()})


@pytest.fixture
def out_of_reach(monkeypatch):
    """Every learner's text encoders that are made from now on."""
    monkeypatch.setattr(family, "Offload", OutOfReach)
    monkeypatch.setattr(OutOfReach, "made", [])
    return OutOfReach.made


class Recorded(nn.Linear):
    def __init__(self):
        super().__init__(1, 1)
        self.requires_grad_(False)
        self.places = []

    def to(self, device):
        self.places.append(device.type)


def test_networks_are_on_the_device_while_somebody_uses_them_and_in_host_memory_afterwards():
    network = Recorded()
    memory = Offload([network], GPU)
    with memory.in_use():
        assert network.places == []  # they begin on the device
    assert network.places == ["cpu"]
    with memory.in_use(), memory.in_use():
        memory.offload()
        assert network.places == ["cpu", "cuda"]
    memory.offload()
    assert network.places == ["cpu", "cuda", "cpu"]


def test_networks_that_train_stay_on_the_device():
    network = Recorded()
    network.bias.requires_grad_(True)
    memory = Offload([network], GPU)
    with memory.in_use():
        memory.offload()
    assert network.places == []


def test_on_a_processor_nothing_moves():
    network = Recorded()
    memory = Offload([network], torch.device("cpu"))
    with memory.in_use():
        memory.offload()
    assert network.places == []


SEEN = {"prompts": [PROMPT], "images_per_prompt": 1, "inference_steps": 2, "inference_cost": {}}
SPLIT = {"kind": "split", "cut": "in", "gradients": "none"}


@pytest.mark.parametrize("topology", [{"kind": "parallel"}])
def test_a_run_whose_text_encoders_are_offloaded_has_the_same_bits(tmp_path, out_of_reach, topology):
    changes = {"topology": topology, "training.rounds": 1, "evaluation": SEEN}
    file = tiny(tmp_path, changes)
    offloaded = run(file, tmp_path / "offloaded")
    moves = [memory.moves for memory in out_of_reach]
    family.Offload = Offload
    usual = run(file, tmp_path / "usual")
    assert offloaded["weights_sha256"] == usual["weights_sha256"]
    for sheet in (tmp_path / "usual").rglob("*.png"):
        other = tmp_path / "offloaded" / sheet.relative_to(tmp_path / "usual")
        assert other.read_bytes() == sheet.read_bytes()
    print(moves)
