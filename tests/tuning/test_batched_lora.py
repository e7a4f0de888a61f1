"""Adapters of several clients in one product, against peft's own layers, one client after another."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from fedray.learners.adapter_files import TakesAdapters
from fedray.scenario import Refused
from fedray.tuning.batched_lora import batched_adapters, batched_layer

K = 3
B = 2


class Network(nn.Module):
    """Every kind of layer that has a batched form."""

    def __init__(self):
        super().__init__()
        self.strided = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.linear = nn.Linear(6, 5)

    def forward(self, x):
        x = torch.tanh(self.grouped(torch.tanh(self.strided(x))))
        return self.linear(x.flatten(2).transpose(1, 2))  # [b, tokens, 5]


class Adapted(TakesAdapters):
    def __init__(self, network):
        self.parts = {"network": network}


def test_outputs_and_gradients_are_those_of_pefts_layers_one_client_after_another():
    torch.manual_seed(0)
    network = Network().requires_grad_(False)
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["strided", "grouped", "linear"])
    network = inject_adapter_in_model(config, network).double()
    learner = Adapted(network)
    named = {
        learner.adapter_key("network", name): p for name, p in network.named_parameters() if "lora_" in name
    }
    ends = torch.tensor([p.numel() for p in named.values()]).cumsum(0).tolist()
    places = dict(zip(named, map(slice, [0, *ends], ends), strict=True))
    weights = torch.randn(K, ends[-1], dtype=torch.float64)
    x = torch.randn(K * B, 4, 9, 7, dtype=torch.float64)

    outputs = []
    gradients = []
    for row, some in zip(weights, x.split(B), strict=True):
        for name, parameter in named.items():
            parameter.data.copy_(row[places[name]].view_as(parameter))
        outputs.append(network(some))
        gradient = torch.autograd.grad(outputs[-1].square().mean(), list(named.values()))
        gradients.append(torch.cat([part.flatten() for part in gradient]))

    together = torch.zeros_like(weights)
    with batched_adapters(learner, places, weights, together):
        output = network(x)
        sum(part.square().mean() for part in output.split(B)).backward()
    assert torch.allclose(output, torch.cat(outputs), rtol=1e-12, atol=1e-12)
    assert torch.allclose(together, torch.stack(gradients), rtol=1e-10, atol=1e-13)
    assert together.abs().amax(1).min() > 1e-3
    # what peft built is there again
    assert torch.equal(network(x[-B:]), outputs[-1])


def test_a_layer_without_a_batched_form_is_refused_by_its_kind():
    with pytest.raises(Refused, match=r"runtime\.gang: got an adapter of Embedding, expected"):
        batched_layer(nn.Embedding(3, 2), torch.zeros(1, 6), torch.zeros(1, 6))


def test_an_adapted_embedding_is_refused_before_anything_is_replaced():
    network = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))
    network = inject_adapter_in_model(LoraConfig(r=1, target_modules=["0", "1"]), network)
    refused = pytest.raises(Refused, match="an adapter of Embedding")
    with refused, batched_adapters(Adapted(network), {}, torch.zeros(1, 1), torch.zeros(1, 1)):
        pass
