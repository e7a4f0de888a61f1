"""A base over several GPUs. There is none here: devices are checked by torch's fake tensors, which compute
nothing and refuse what two devices would, and numbers by a base in two shares on one processor."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fedray.checks import check
from fedray.learners import learners
from fedray.learners.contexts import LearnerContext
from fedray.learners.language_model import LanguageModel
from fedray.learners.learners import NO_DATA
from fedray.learners.spreading import FollowingConv2d, FollowingLinear, device_map, spread
from fedray.learners.text_to_image import TextToImage
from fedray.scenario import ScenarioError
from fedray.scenario.language_model import LanguageModel as LanguageSection
from fedray.scenario.text_to_image import TextToImage as ImageSection
from fedray.scenario.tuning import Lora
from fedray.tuning.tunings import tuning
from tests.helpers import UNSEEN, run, tiny
from tests.learners.families.tiny_bases import BASES

GPUS = (torch.device("cuda:0"), torch.device("cuda:1"))
HALVES = (torch.device("cpu"), torch.device("cpu"))


def of_base(name, folder):
    """A learner on the meta device with its adapters, and its network that trains."""
    context = LearnerContext(NO_DATA, device=torch.device("meta"), devices=GPUS)
    if name == "tiny-lm":
        learner = LanguageModel.load(
            LanguageSection(kind="language_model", base=name, max_length=32), context
        )
        network = learner.network
    else:
        base = BASES[name](folder / "base")
        learner = TextToImage.load(ImageSection(kind="text_to_image", base=str(base)), context)
        network = learner.family.denoiser
    targets = "all-linear" if name == "tiny-lm" else "attention"
    tuning(Lora(kind="lora", rank=2, targets=targets), 0).apply(learner)
    return learner, network


def on_fake_gpus(learner, network):
    """The network's pieces on two GPUs as they are mapped, all else and what trains on the first."""
    where = device_map(network, GPUS)
    later = []
    for part in learner.parts.values():
        for path, module in part.named_modules():
            mapped = [d for piece, d in where.items() if f"{path}.".startswith(f"{piece}.")]
            there = mapped[0] if part is network and mapped else GPUS[0]
            for name, parameter in module._parameters.items():
                if parameter is None:
                    continue
                trains = ".lora_" in path
                made = nn.Parameter(torch.empty(parameter.shape, device=GPUS[0] if trains else there))
                module._parameters[name] = None if trains else made
                later += [(module, name, made)] if trains else []
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=there)
    spread(network, GPUS)
    for module, name, parameter in later:
        module._parameters[name] = parameter
    learner.device = GPUS[0]
    if isinstance(learner, TextToImage):
        learner.family.device = GPUS[0]


def forward(learner):
    """What a step gives; of a language model logits, as its loss asks which tokens are judged."""
    if isinstance(learner, TextToImage):
        return learner.loss(learner.blank_batch()[0])
    tokens = torch.zeros(1, 8, dtype=torch.long, device=GPUS[0])
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool, device=GPUS[0])
    return learner.network(input_ids=tokens, attention_mask=mask, use_cache=False).logits


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("name", [*BASES, "tiny-lm"])
def test_a_step_over_two_gpus_mixes_nothing_of_two_devices(name, tmp_path):
    learner, network = of_base(name, tmp_path)
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_fake_gpus(learner, network)
        assert {p.device for p in network.parameters()} == set(GPUS)
        assert forward(learner).device == GPUS[0]


@pytest.mark.parametrize(
    ("layer", "taken"),
    [(FollowingLinear(4, 4, bias=False), (1, 4)), (FollowingConv2d(4, 4, 3, bias=False), (1, 4, 5, 5))],
)
def test_an_adapter_computes_where_its_input_is(layer, taken):
    with FakeTensorMode(allow_non_fake_inputs=True):
        layer.weight = nn.Parameter(torch.empty(layer.weight.shape, device=GPUS[0]))
        assert layer(torch.empty(taken, device=GPUS[1])).device == GPUS[1]


def test_blocks_are_shared_out_by_bytes_in_the_order_in_which_they_compute():
    network = nn.Module()
    network.first = nn.Linear(10, 10, bias=False)
    network.blocks = nn.ModuleList(nn.Linear(10, 10, bias=False) for _ in range(7))
    where = device_map(network, [torch.device("cuda", i) for i in range(4)])
    assert [d.index for d in where.values()] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_two_ends_of_a_language_model_are_on_the_first_gpu(tmp_path):
    _, network = of_base("tiny-lm", tmp_path)
    where = device_map(network, GPUS)
    layers = [d for name, d in where.items() if name.startswith("model.layers.")]
    assert layers == sorted(layers, key=lambda d: d.index)
    assert set(layers) == set(GPUS)
    assert {d for name, d in where.items() if not name.startswith("model.layers.")} == {GPUS[0]}


def test_a_run_with_its_base_in_two_shares_has_the_same_bits_and_files(tmp_path, monkeypatch):
    adapters = {"kind": "lora", "rank": 2, "targets": "attention"}
    file = tiny(tmp_path, UNSEEN | {"tuning": adapters, "runtime.gpus_per_actor": 2})
    whole = run(file, tmp_path / "whole")
    spread_over = []

    def halves(scenario, device):
        several = device.type == "cpu" and scenario.runtime.gpus_for_base(scenario.model) == 2
        spread_over.append(several)
        return HALVES if several else ()

    monkeypatch.setattr(learners, "_spread_over", halves)
    shared = run(file, tmp_path / "shared")
    assert any(spread_over)
    assert shared["weights_sha256"] == whole["weights_sha256"]
    for path in sorted((tmp_path / "whole" / "model").rglob("*.safetensors")):
        other = tmp_path / "shared" / path.relative_to(tmp_path / "whole")
        assert other.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tuning": {"kind": "full"}}, "2 with tuning.kind full"),
        ({"runtime.gang": 2}, "2 with gang 2"),
        ({"runtime.gpus_per_actor": 1.5}, "1.5, expected at most 1, or a whole number"),
        ({"runtime.base_precision": "int8"}, "2 with base_precision int8"),
    ],
)
def test_what_cannot_train_beside_a_base_over_several_gpus_is_refused(changes, problem, tmp_path):
    file = tiny(tmp_path, {"runtime.gpus_per_actor": 2} | changes)
    with pytest.raises(ScenarioError, match=rf"runtime\.gpus_per_actor: got {problem}"):
        check(file)
