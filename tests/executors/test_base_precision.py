"""runtime.base_precision: the number format of a frozen base beside LoRA."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedray import checks
from fedray.checks import check
from fedray.learners.base_precision import BasePrecision
from fedray.learners.contexts import LearnerContext
from fedray.learners.learners import NO_DATA
from fedray.learners.text_to_image import TextToImage
from fedray.planning.workload import Workload
from fedray.scenario import ScenarioError, load
from fedray.scenario.quantized_formats import QUANTIZED
from fedray.scenario.text_to_image import TextToImage as Section
from tests.helpers import PROMPT, UNSEEN, run, tiny

INT8 = {"runtime.base_precision": "int8"}
NF4 = {"runtime.base_precision": "nf4"}
LIBRARIES = {"int8": "torchao", "nf4": "bitsandbytes"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"runtime.base_precision": "bf16"}, "training.precision bf16"),
        (INT8 | {"training.precision": "fp16"}, "training.precision bf16 or fp32"),
        (NF4 | {"training.precision": "fp16"}, "training.precision bf16 or fp32"),
        (NF4 | {"runtime.gang": 2, "topology": {"kind": "parallel"}}, "a base in floating point"),
        (INT8 | {"tuning": {"kind": "full", "parts": ["unet"]}}, "tuning.kind lora"),
        (INT8 | {"model.control": {"condition": "edges"}}, "no ControlNet"),
    ],
)
def test_what_a_base_precision_does_not_go_with_is_refused(tmp_path, changes, expected):
    with pytest.raises(ScenarioError, match="base_precision") as refused:
        load(tiny(tmp_path, changes))
    assert expected in str(refused.value)


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_format_without_its_library_is_refused_with_what_to_install(tmp_path, monkeypatch, name):
    monkeypatch.setattr(checks, "find_spec", lambda library: None)
    expected = rf"{name} without {LIBRARIES[name]}, expected pip install 'fedray\[quantized\]'"
    with pytest.raises(ScenarioError, match=expected):
        check(tiny(tmp_path, {"runtime.base_precision": name}))


def test_a_plan_counts_linear_layers_of_a_quantized_base_by_their_bits():
    sizes = {"payload_bytes": 0, "downlink_bytes": (0,), "uplink_bytes": (0,), "summed_bytes": 0}
    none = {"gathered_bytes": 0, "client_state_bytes": 0, "flops_per_sample": 0.0, "export_files": {}}
    workload = Workload(17e6, trainable_parameters=0, **sizes, **none, quantizable_parameters=16e6)
    # QLoRA's double quantization takes 0.127 bits a weight beside the 4 (Dettmers et al. 2023, Sec. 3)
    nf4 = 16e6 * 4.127 / 8
    expected = {
        (None, "fp32"): 68e6,
        ("fp32", "bf16"): 68e6,
        (None, "bf16"): 34e6,
        ("int8", "fp32"): 16e6 + 4e6,
        ("int8", "bf16"): 16e6 + 4e6,
        ("nf4", "fp32"): nf4 + 4e6,
        ("nf4", "bf16"): nf4 + 2e6,
    }
    for (base, precision), needed in expected.items():
        assert workload.memory_bytes(precision, base)["client"] == pytest.approx(needed, rel=1e-4)


@pytest.mark.parametrize("name", LIBRARIES)
def test_lora_beside_a_quantized_base_trains_and_exports_the_whole_model(tmp_path, name):
    pytest.importorskip(LIBRARIES[name])
    hashes = {}
    for base in ("fp32", name):
        changes = UNSEEN | {"runtime.executor": "serial", "runtime.base_precision": base}
        summary = run(tiny(tmp_path, changes, f"{base}.yaml"), tmp_path / base)
        hashes[base] = summary["weights_sha256"]
        assert (tmp_path / base / "model" / "unet" / "config.json").is_file()
    assert hashes["fp32"] != hashes[name]


@torch.no_grad()
@pytest.mark.parametrize("name", LIBRARIES)
def test_quantized_text_encoders_that_are_moved_compute_the_same(name):
    pytest.importorskip(LIBRARIES[name])
    section = Section(kind="text_to_image", base="tiny-sd")
    learner = TextToImage.load(section, LearnerContext(NO_DATA, base_precision=name))
    before = learner.embed(PROMPT)["text"]
    for encoder in learner.family.text_encoders:
        encoder.to(torch.device("cpu"))
    assert torch.equal(learner.embed(PROMPT)["text"], before)
    exact = TextToImage.load(section, LearnerContext(NO_DATA)).embed(PROMPT)["text"]
    assert not torch.equal(exact, before)


def test_an_nf4_base_is_as_near_and_as_small_as_qlora_says():
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(512, 1024), nn.LayerNorm(1024))
    weight = network[0].weight.detach().normal_().clone()
    x = torch.randn(8, 512)
    exact = network[0](x)
    quantized = BasePrecision.of("nf4", torch.float32).on_device("unet", network, torch.device("cpu"))
    layer = quantized[0]
    dense = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    # 16 levels at a normal distribution's quantiles, scaled by the largest of 64: an error of 9 %
    assert 0.08 < (dense - weight).norm() / weight.norm() < 0.1
    assert (layer(x) - exact).norm() / exact.norm() < 0.12
    assert torch.allclose(layer(x), F.linear(x, dense, layer.bias), atol=1e-5)
    state = layer.weight.quant_state
    scales = state.absmax.nbytes + state.state2.absmax.nbytes
    bits = 8 * (layer.weight.nbytes + scales) / weight.numel()
    assert bits == pytest.approx(QUANTIZED["nf4"].bits, rel=1e-3)
    network = nn.Sequential(nn.Linear(512, 64, dtype=torch.bfloat16))
    half = BasePrecision.of("nf4", torch.bfloat16).on_device("unet", network, torch.device("cpu"))
    assert half(x).dtype == torch.bfloat16  # as a linear layer under autocast, though fp32 comes in
