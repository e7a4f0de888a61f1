"""A language model in every topology, on Ray, and planned from its configuration alone."""

import json
import re

import pytest
import torch

from fedray.checks import check
from fedray.planning.plan import plan as planned
from fedray.scenario import ScenarioError
from tests.helpers import TWO_ACTORS, CommandLine, broken_off, run, unevaluated
from tests.learners.tiny_language import CHATML, base, scenario

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


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_rule_that_adds_to_base_weights_adds_what_an_adapter_merges(tmp_path, kind):
    """GPT-2 stores its weights the other way round than a product B A."""
    from transformers import AutoModelForCausalLM

    merged = {}
    with unevaluated():
        for rule in ("fedavg", "flora"):
            changes = {"aggregation": {"kind": rule}, "population.per_round": 1, "training.rounds": 1}
            run(scenario(tmp_path, changes | {"tuning.targets": "all-linear"}, kind), tmp_path / rule)
            model = AutoModelForCausalLM.from_pretrained(tmp_path / rule / "model")
            merged[rule] = dict(model.named_parameters())
    assert not (tmp_path / "flora" / "model" / "adapter").exists()
    for name, weight in merged["fedavg"].items():
        assert torch.allclose(weight, merged["flora"][name], atol=1e-6), name


@pytest.mark.parametrize(("form", "library"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_beside_a_quantized_base_adapters_train_and_merge_into_the_bases_own_weights(tmp_path, form, library):
    """The head, which may have the embedding's weights, is not quantized."""
    from transformers import AutoModelForCausalLM

    pytest.importorskip(library)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "tie_word_embeddings": True}
    file = scenario(tmp_path, {"runtime.base_precision": form}, **sizes)
    result = run(file, tmp_path / "out")
    assert result["final"]["eval_loss"] < result["baseline"]["eval_loss"]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    original = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    for (name, ours), theirs in zip(merged.named_parameters(), original.parameters(), strict=True):
        trained = name.endswith(("q_proj.weight", "v_proj.weight"))
        assert torch.equal(ours, theirs) != trained, name


def test_a_split_with_embedding_and_head_at_home_learns_what_an_unsplit_model_learns(tmp_path):
    """Also in micro-batches whose answers are not equally long."""
    v1 = SPLIT | {"variant": "splitfed_v1", "micro_batches": 2}
    after = []
    for name, changes in (("split", {"topology": v1}), ("whole", {})):
        file = scenario(tmp_path, changes | {"tuning.targets": "all-linear"}, tie_word_embeddings=True)
        run(file, tmp_path / name)
        after.append(losses(tmp_path / name)[1])
    assert after[0] == pytest.approx(after[1], abs=1e-5)


def test_actors_change_no_bit_of_it(cluster, tmp_path):
    """Dropout, in the adapters and in the base, comes from keyed draws, too."""
    changes = {"training.local_steps": 1, "tuning.dropout": 0.1}
    digests = set()
    with unevaluated():
        for name, runtime in (("two", TWO_ACTORS), ("serial", {"executor": "serial"})):
            file = scenario(tmp_path, changes | {"runtime": runtime}, kind="gpt2")
            digests.add(run(file, tmp_path / name)["weights_sha256"])
    assert len(digests) == 1


def test_a_run_goes_on_beside_the_same_base_and_writes_what_it_is_asked(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("FEDRAY_CODE", str(tmp_path))  # where colours.py is
    fedray = CommandLine(monkeypatch, capfd)
    (tmp_path / "mine.jinja").write_text("Answer!" + CHATML)
    file = scenario(tmp_path, {"model.chat_template": "mine.jinja"})
    with unevaluated():
        whole = run(file, tmp_path / "run")
        broken_off(tmp_path / "run", tmp_path / "part", 2)
        again = run(file, tmp_path / "part", resume=True)
        assert again["weights_sha256"] == whole["weights_sha256"]
        for name in whole["artifacts"]:
            assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "run" / name).read_bytes(), name
    code, out, told = fedray(
        "generate", tmp_path / "run", "--prompt", "say red", "--steps", 5, "--num", 2, "--compare", "--json"
    )
    assert code == 0, told
    texts = json.loads(out)["texts"]
    assert [(row["model"], row["seed"]) for row in texts] == [
        ("base model", 0),
        ("base model", 1),
        ("this run", 0),
        ("this run", 1),
    ]
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    (tmp_path / "part" / "result.json").unlink()
    with pytest.raises(ScenarioError, match=r"model.base \(its files\)"):
        run(file, tmp_path / "part", resume=True)


BAD = {
    "model on images": (
        {"data": {"kind": "fashion_mnist_mini", "partition": {"kind": "iid"}}},
        "model.kind: got language_model on samples, expected data of conversations",
    ),
    "images' model": (
        {"model": {"kind": "classifier"}, "tuning": {"kind": "full"}},
        "model.kind: got classifier on conversations, expected language_model",
    ),
    "text's model": (
        {"model": {"kind": "transformer", "objective": "causal_language"}, "tuning": {"kind": "full"}},
        "model.kind: got transformer on conversations, expected language_model",
    ),
    "kohya": (
        {"tuning.targets": "kohya"},
        "tuning.targets: got kohya for a language_model, expected attention or all-linear",
    ),
    "packing in a split": (
        {"topology": SPLIT, "model.packing": True},
        "model.packing: got true with topology.kind split",
    ),
    "longer than the base": (
        {"model.max_length": 65},
        "model.max_length: got 65, expected at most 64, the base's positions",
    ),
    "no such base": ({"model.base": "nowhere"}, "model.base: got 'nowhere', which is not there, expected "),
    "no base": ({"model.base": "."}, "model.base: got '.' without config.json, expected "),
    "an image model": ({"model.base": "tiny-sd"}, "model.base: got 'tiny-sd', which is not there"),
    "no such template": (
        {"model.chat_template": "mine.jinja"},
        "model.chat_template: got 'mine.jinja', expected a file",
    ),
    "unknown cut": (
        {"topology": SPLIT | {"cut": "layer_2"}},
        "topology.cut: got 'layer_2', expected auto, or one of embed, layer_0",
    ),
    "exact match of images": (
        {"evaluation.exact_match": 99},
        "evaluation.exact_match: got 99, of 4 samples to test on, expected at most 4",
    ),
    "unknown layer": (
        {"tuning.targets": ["to_q"]},
        "tuning.targets: got 'to_q', expected names of layers of the network, such as q_proj",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused_with_what_would(tmp_path_factory, changes, message):
    folder = tmp_path_factory.getbasetemp() / "language-bad"
    with pytest.raises(ScenarioError, match=re.escape(message)):
        planned(check(scenario(folder, changes)))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"architectures": ["BertForMaskedLM"]}, "got a BertForMaskedLM"),
        ("config.json", {"auto_map": {"AutoModel": "x.Y"}}, "got auto_map in .* brings no code"),
        ("tokenizer.json", None, "without a tokenizer"),
        ("chat_template.jinja", None, r"whose tokenizer has no chat template, .* shipped:alpaca\.jinja"),
        ("model.safetensors", None, "without weights"),
        ("adapter_config.json", {}, "an adapter .* merge it first"),
        ("config.json", {"model_type": "gpt2"}, "split for a gpt2, expected parallel or relay"),
    ],
)
def test_a_base_that_is_not_whole_is_refused_by_its_file(tmp_path, file, change, message):
    base(tmp_path / "base")
    place = tmp_path / "base" / file
    if change is None:
        place.unlink()
    else:
        place.write_text(json.dumps((json.loads(place.read_text()) if place.exists() else {}) | change))
    with pytest.raises(ScenarioError, match=message):
        check(scenario(tmp_path, {"topology": SPLIT}))
