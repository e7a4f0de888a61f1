"""runtime.base_precision: the number format of a frozen base beside LoRA."""

import pytest

from fedray import checks
from fedray.checks import check
from fedray.planning.workload import Workload
from fedray.scenario import ScenarioError, load
from tests.helpers import UNSEEN, run, tiny

INT8 = {"runtime.base_precision": "int8"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"runtime.base_precision": "nf4"}, "nf4 needs bitsandbytes and a GPU"),
        ({"runtime.base_precision": "bf16"}, "training.precision bf16"),
        (INT8 | {"training.precision": "fp16"}, "training.precision bf16 or fp32"),
        (INT8 | {"tuning": {"kind": "full", "parts": ["unet"]}}, "tuning.kind lora"),
        (INT8 | {"model.control": {"condition": "edges"}}, "no ControlNet"),
    ],
)
def test_what_a_base_precision_does_not_go_with_is_refused(tmp_path, changes, expected):
    with pytest.raises(ScenarioError, match=r"runtime\.base_precision") as refused:
        load(tiny(tmp_path, changes))
    assert expected in str(refused.value)


def test_int8_without_torchao_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(
        ScenarioError, match=r"int8 without torchao, expected pip install 'fedray\[quantized\]'"
    ):
        check(tiny(tmp_path, INT8))


def test_a_plan_counts_linear_layers_of_an_int8_base_as_a_byte_a_weight():
    sizes = {"payload_bytes": 0, "downlink_bytes": (0,), "uplink_bytes": (0,), "summed_bytes": 0}
    none = {"gathered_bytes": 0, "client_state_bytes": 0, "flops_per_sample": 0.0, "export_files": {}}
    workload = Workload(1000, trainable_parameters=0, **sizes, **none, quantizable_parameters=900)
    expected = {None: 4000, "fp32": 4000, "int8": 900 + 4 * 100}
    assert {base: workload.memory_bytes("fp32", base)["client"] for base in expected} == expected


def test_lora_beside_an_int8_base_trains_and_exports_the_whole_model(tmp_path):
    pytest.importorskip("torchao")
    hashes = {}
    for base in ("fp32", "int8"):
        changes = UNSEEN | {"runtime.executor": "serial", "runtime.base_precision": base}
        summary = run(tiny(tmp_path, changes, f"{base}.yaml"), tmp_path / base)
        hashes[base] = summary["weights_sha256"]
        assert (tmp_path / base / "model" / "unet" / "config.json").is_file()
    assert hashes["fp32"] != hashes["int8"]
