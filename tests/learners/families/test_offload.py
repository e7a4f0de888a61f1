"""Text encoders that do not train leave the device between two uses."""

import numpy as np
import pytest
import torch
from torch import nn

from fedray.learners.contexts import LearnerContext
from fedray.learners.families.offload import Offload
from fedray.learners.learners import NO_DATA
from fedray.learners.text_to_image import TextToImage
from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from fedray.scenario.text_to_image import TextToImage as Section
from fedray.scenario.textual_inversion import TextualInversion
from fedray.scenario.tuning import Lora
from fedray.tuning.tunings import tuning
from tests.helpers import UNSEEN, begun, tiny
from tests.learners.families.out_of_reach import offload_out_of_reach

GPU = torch.device("cuda")


class Recorded(nn.Linear):
    """Writes down where it is moved, and stays."""

    def __init__(self):
        super().__init__(1, 1)
        self.requires_grad_(False)
        self.places = []

    def to(self, device):
        self.places.append(device.type)


def test_networks_are_on_the_device_in_use_and_in_host_memory_afterwards():
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


@pytest.mark.parametrize(
    "section",
    [
        Lora(kind="lora", rank=2, targets="kohya"),
        TextualInversion(kind="textual_inversion", token="<ink>", initializer="ink", stands_for="ink"),
    ],
    ids=lambda section: section.kind,
)
def test_text_encoders_that_a_tuning_trains_are_not_offloaded(monkeypatch, section):
    made = offload_out_of_reach(monkeypatch)
    learner = TextToImage.load(Section(kind="text_to_image", base="tiny-sd"), LearnerContext(NO_DATA))
    tuning(section, 0).apply(learner)
    learner.prepare_training(False)
    learner.embed("ink")
    assert [memory.moves for memory in made] == [[]]


def after_a_round(file):
    """The global buffer after the first round, of two clients."""
    executor = begun(file)
    scenario = executor.job.scenario
    schedule = schedule_round(scenario, Radio(scenario.network), 1, executor.shared)
    assert all(report.failure is None for report in executor.run_round(schedule))
    return executor.buffer


@pytest.mark.parametrize(
    ("topology", "moves"),
    [
        # the second client's captions are encoded after the first one has trained
        ({"kind": "parallel"}, [["cpu", "cuda", "cpu", "cuda", "cpu"]]),
        # the server's model encodes none
        (
            {"kind": "split", "cut": "in", "tail": "loss", "may_send": ["text"]},
            [["cpu", "cuda", "cpu", "cuda", "cpu"], ["cpu"]],
        ),
    ],
    ids=["parallel", "split"],
)
def test_text_encoders_come_back_for_captions_alone_and_change_no_bit(tmp_path, topology, moves):
    population = {"clients": 5, "per_round": 2}
    changes = {"topology": topology, "tuning.targets": "attention", "population": population}
    file = tiny(tmp_path, UNSEEN | changes)
    with pytest.MonkeyPatch.context() as patched:
        made = offload_out_of_reach(patched)
        offloaded = after_a_round(file)
        assert [memory.moves for memory in made] == moves
    assert np.array_equal(offloaded, after_a_round(file))


def test_buffers_of_a_part_that_has_moved_are_their_initial_ones_in_each_local_update(tmp_path):
    executor = begun(tiny(tmp_path, UNSEEN))
    model = executor.clients.model
    module = model.learner.family.text_encoders[0].get_submodule("embeddings")
    initial = module.position_ids.clone()
    module.position_ids = torch.zeros_like(initial)  # as `Module.to` replaces it, then changed by a client
    model.receive(executor.buffer)
    assert torch.equal(module.position_ids, initial)
