import pytest
import torch
from torch import nn

from fedray.learners.adapter_files import peft_key
from fedray.scenario.base import Refused
from fedray.tuning.adapter_set import AdapterSet


class Stub:
    """What a set asks of a learner."""

    device = torch.device("cpu")

    def __init__(self):
        torch.manual_seed(0)
        layers = {"to_q": nn.Linear(6, 4), "conv": nn.Conv2d(3, 5, 3), "one": nn.Conv2d(5, 2, 1)}
        self.parts = {"unet": nn.ModuleDict(layers | {"table": nn.Embedding(3, 2)})}

    def adapter_key(self, part, name):
        return peft_key(part, name)

    def weights(self):
        return {name: p.detach().clone() for name, p in self.parts["unet"].named_parameters()}


def factors(rank, seed):
    g = torch.Generator().manual_seed(seed)
    shapes = {
        "to_q": ((rank, 6), (4, rank)),
        "conv": ((rank, 3, 3, 3), (5, rank, 1, 1)),
        "one": ((rank, 5, 1, 1), (2, rank, 1, 1)),
    }
    return {
        f"unet.{name}.lora_{side}.weight": torch.randn(shape, generator=g)
        for name, pair in shapes.items()
        for side, shape in zip("AB", pair, strict=True)
    }


def merged_by_peft(tensors, rank):
    """The weights of the stub's layers with this adapter merged into them by peft itself."""
    from peft import LoraConfig, inject_adapter_in_model

    model = Stub().parts["unet"]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["to_q", "conv", "one"])
    inject_adapter_in_model(config, model)
    for name, tensor in tensors.items():
        layer, side, _ = name.removeprefix("unet.").split(".")
        getattr(model[layer], side)["default"].weight.data.copy_(tensor)
    for layer in ("to_q", "conv", "one"):
        model[layer].merge()
    return {layer: model[layer].get_base_layer().weight for layer in ("to_q", "conv", "one")}


def test_a_layer_in_use_has_the_bits_that_peft_merges_and_the_base_stays_as_it_is():
    learner = Stub()
    before = learner.weights()
    adapters = {"ink": factors(2, 1), "chalk": factors(3, 2)}
    both = AdapterSet(learner, adapters)
    for name, rank in (("ink", 2), ("chalk", 3), ("ink", 2)):
        both.use(name)
        for layer, weight in merged_by_peft(adapters[name], rank).items():
            assert torch.equal(learner.weights()[f"{layer}.weight"], weight)
    both.use_none()
    assert all(torch.equal(value, before[name]) for name, value in learner.weights().items())


def test_a_layer_that_one_adapter_leaves_alone_is_the_bases_after_another():
    learner = Stub()
    before = learner.weights()["conv.weight"]
    small = {name: t for name, t in factors(2, 1).items() if "to_q" in name}
    both = AdapterSet(learner, {"all": factors(2, 2), "small": small})
    both.use("all")
    assert not torch.equal(learner.weights()["conv.weight"], before)
    both.use("small")
    assert torch.equal(learner.weights()["conv.weight"], before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unet.gone.lora_A.weight": torch.zeros(2, 6)}, "an adapter of 'unet.gone', which is NoneType"),
        ({"unet.table.lora_A.weight": torch.zeros(2, 6)}, "'unet.table', which is Embedding"),
        ({"unet.to_q.lora_A.weight": torch.zeros(2, 7)}, "for 'unet.to_q', expected two that make [4, 6]"),
        ({"unet.to_q.lora_A.weight": torch.zeros(3, 6)}, "for 'unet.to_q', expected two that make [4, 6]"),
        ({"unet.to_q.alpha": torch.zeros(())}, "a tensor 'unet.to_q.alpha'"),
        ({"unet.to_q.lora_B.weight": None}, "one of A and B of 'unet.to_q', expected both"),
    ],
)
def test_an_adapter_of_other_layers_is_refused(change, message):
    tensors = {name: t for name, t in (factors(2, 1) | change).items() if t is not None}
    with pytest.raises(Refused) as refused:
        AdapterSet(Stub(), {"ink": tensors})
    assert message in str(refused.value)
