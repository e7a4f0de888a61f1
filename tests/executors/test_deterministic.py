"""What runs use of torch, beside the list of what has no deterministic form on CUDA
(torch.use_deterministic_algorithms)."""

import os

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fedray.executors.model import make_deterministic
from tests.helpers import garments, run, tiny

# Operators behind "will throw a RuntimeError when mode=True" of torch's documentation, 2.9 to 2.15, on CUDA.
RAISE = {
    "avg_pool3d_backward",
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward",
    "max_unpool2d",
    "max_unpool3d",
    "upsample_linear1d_backward",
    "upsample_bilinear2d_backward",
    "_upsample_bilinear2d_aa_backward",
    "upsample_bicubic2d_backward",
    "_upsample_bicubic2d_aa_backward",
    "upsample_trilinear3d_backward",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "nll_loss2d_forward",
    "nll_loss2d_backward",
    "_ctc_loss_backward",
    "put",
    "put_",
    "histc",
    "median",
    "nanmedian",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
    "kthvalue",
    "bincount",
    "scatter_reduce",
}

SPLIT = {"topology": {"kind": "split", "cut": "auto", "tail": "auto"}, "runtime.failures": {"data": "abort"}}
TEXT = {
    "data": {"kind": "text", "path": "shipped:shakespeare", "length": 32, "partition": {"kind": "folder"}},
    "population": {"clients": 10, "per_round": 2},
}
PAINTS = {
    "kind": "diffusion",
    "resolution": 16,
    "channels": [32, 32],
    "attention": [1],
    "layers": 1,
    "timesteps": 20,
}
WRITES = {"kind": "transformer", "width": 16, "layers": 2, "heads": 2}
LEAKS = {"evaluation": {"leakage": {"samples": 16, "attack_steps": 2}}}
SCENARIOS = {
    "a CNN": {},
    "a ResNet, thinned out and quantized": {
        "population": {"clients": 2, "per_round": 1},
        "model": {"kind": "classifier", "network": "resnet18", "norm": "group", "resolution": 16},
        "aggregation": {
            "kind": "fedavg",
            "transforms": [{"kind": "top_k", "fraction": 0.1}, {"kind": "quantize", "bits": 8}],
        },
    },
    "a CNN whose inputs an attacker wants": (
        SPLIT | LEAKS | {"topology.defence": {"kind": "distance_correlation", "weight": 0.1}}
    ),
    "a DDPM and its quality": {
        "model": PAINTS,
        "evaluation": {"quality": {"images": 16}, "inference_steps": 2},
    },
    "BERT": TEXT | {"model": WRITES | {"objective": "masked_language"}},
    "GPT-2": (
        TEXT
        | {
            "model": WRITES | {"objective": "causal_language"},
            "evaluation": {"prompts": ["O"], "new_tokens": 2},
        }
    ),
    "BERT whose texts an attacker wants": (
        TEXT | SPLIT | LEAKS | {"model": WRITES | {"objective": "masked_language"}}
    ),
    "ViT": {"model": WRITES | {"objective": "classification"}},
    "SimMIM": {"model": WRITES | {"objective": "masked_image"}},
    "Stable Diffusion": None,
}


class Used(TorchDispatchMode):
    """The names of all operators that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("what", SCENARIOS)
def test_no_run_uses_what_has_no_deterministic_form_on_cuda(what, tmp_path):
    changes = SCENARIOS[what]
    once = {"training.rounds": 1, "population": {"clients": 5, "per_round": 2}}
    quick = once | {"training.batch_size": 4}
    file = tiny(tmp_path, once) if changes is None else garments(tmp_path, quick | changes)
    with Used() as used:
        run(file, tmp_path / "run")
    assert {"add", "convolution"} & used.names
    assert not used.names & RAISE


def test_cuda_is_asked_for_deterministic_algorithms_strictly(monkeypatch):
    asked = []
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch, "use_deterministic_algorithms", lambda mode, warn_only=False: asked.append((mode, warn_only))
    )
    make_deterministic(torch.get_num_threads())
    assert asked == [(True, False)]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
