"""A language model in every topology, on Ray, and planned from its configuration alone."""

import json

import pytest
import torch

from tests.helpers import run
from tests.learners.tiny_language import scenario

ASYNCHRONOUS = {
    "topology": {"kind": "parallel", "mode": {"kind": "fedasync", "concurrency": 2}},
    "population.per_round": None,
}
SPLIT = {"kind": "split", "variant": "splitfed_v2", "cut": "embed", "tail": "head"}


def losses(out):
    result = json.loads((out / "result.json").read_text())
    return result["baseline"]["eval_loss"], result["final"]["eval_loss"]


def test_clients_teach_it_side_by_side_and_its_files_open(tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    changes = {"training.rounds": 4, "training.local_steps": 8, "tuning.targets": "all-linear"}
    changes |= {"training.optimizer.learning_rate": 0.05, "model.packing": True}
    file = scenario(
        tmp_path, changes | {"evaluation": {"prompts": ["say red"], "exact_match": 4, "new_tokens": 4}}
    )
    result = run(file, tmp_path / "out")
    before, after = losses(tmp_path / "out")
    assert after < before - 0.05
    assert 0 <= result["final"]["eval_exact_match"] <= 1
    assert result["final"]["eval_perplexity"] == pytest.approx(2.718281828**after)
    model = tmp_path / "out" / "model"
    merged = AutoModelForCausalLM.from_pretrained(model)
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"), model / "adapter"
    )
    tokens = torch.arange(6)[None]
    with torch.no_grad():
        logits = merged(input_ids=tokens).logits
        assert torch.allclose(adapted(input_ids=tokens).logits, logits, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"topology": {"kind": "relay", "order": "random", "chains": 1}},
        ASYNCHRONOUS,
        {"topology": SPLIT},
        {"topology": SPLIT, "tuning": {"kind": "full"}},
        {"tuning": {"kind": "partial", "patterns": ["network.model.layers.1.*"]}},
        {"training.precision": "bf16", "training.gradient_checkpointing": True},
    ],
    ids=["relay", "asynchronous", "split", "full in a split", "partial", "bf16"],
)
def test_it_learns_in_every_topology(tmp_path, changes):
    file = scenario(tmp_path, changes | {"training.optimizer.learning_rate": 0.03}, tie_word_embeddings=True)
    run(file, tmp_path / "out")
    before, after = losses(tmp_path / "out")
    assert after < before
