"""Work that is counted on the processor is the meta device's, by torch's own counter."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fedray.data import Dataset
from fedray.learners.flops import counted_flops
from fedray.learners.learners import for_counting, on_meta
from tests.helpers import garments, job_of

SMALL = {
    "classifier": {"kind": "classifier", "network": "cnn"},
    "gan": {"kind": "gan"},
    "vae": {"kind": "vae"},
}


def blank_step(learner):
    for part in learner.parts.values():
        part.requires_grad_(True)
    batch, _ = learner.blank_batch()
    return lambda: learner.loss(batch).backward()


@pytest.mark.parametrize("kind", SMALL)
def test_a_small_network_is_counted_on_the_processor_as_on_the_meta_device(kind, tmp_path):
    _, job = job_of(garments(tmp_path, {"model": SMALL[kind]}))
    dataset = Dataset.of(job.scenario, job.folder)
    small = for_counting(job.scenario, job.folder, dataset)
    with FlopCounterMode(display=False) as expected:
        blank_step(on_meta(job.scenario, job.folder, dataset))()
    assert small.device.type == "cpu"
    assert counted_flops(blank_step(small)) == expected.get_total_flops() > 0


def test_what_attention_is_made_of_is_counted_where_nothing_is_differentiated():
    q = torch.zeros(1, 2, 8, 4)

    def step():
        with torch.inference_mode():
            torch.nn.functional.scaled_dot_product_attention(q, q, q)

    with FlopCounterMode(display=False) as expected:
        step()
    assert counted_flops(step) == expected.get_total_flops() > 0


def test_a_plan_for_a_small_classifier_does_not_import_torchs_compiler(tmp_path):
    code = (
        "import sys; from pathlib import Path; from fedray.checks import check\n"
        f"from fedray.planning.plan import plan; plan(check(Path({str(garments(tmp_path))!r})))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
