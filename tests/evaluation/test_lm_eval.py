"""Tasks of the Language Model Evaluation Harness: asked of the network in memory, and refused where they
cannot be."""

import importlib.util
import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fedray.evaluation import lm_eval
from fedray.scenario import Refused, ScenarioError
from fedray.scenario.lm_eval import LmEval as Section
from tests.helpers import check, garments

TASK = """\
task: letters
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: [a, b, c]
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def tokenizer():
    """A token a byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="!", pad_token="!")


class Learner:
    """Writes one letter, whatever stands before it."""

    device = torch.device("cpu")

    def __init__(self, letter):
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
        network = LlamaForCausalLM(LlamaConfig(vocab_size=256, max_position_embeddings=64, **sizes)).eval()
        self.tokenizer = tokenizer()
        head = nn.Linear(16, 256)  # of which the bias alone says anything
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        head.bias.data[self.tokenizer.convert_tokens_to_ids(letter)] = 5.0
        network.lm_head = head
        self.network = network

    def as_transformers(self):
        return self.network, self.tokenizer

    def evaluating(self):
        return nullcontext()

    autocast = evaluating


@pytest.fixture
def tasks(tmp_path):
    pytest.importorskip("lm_eval")
    questions = [{"question": f"{i}:", "answer": i % 3} for i in range(10)]
    file = tmp_path / "letters.jsonl"
    file.write_text("\n".join(map(json.dumps, questions)))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "letters.yaml").write_text(TASK.format(file=file))
    return SimpleNamespace(folder=tmp_path)


def test_a_task_of_ones_own_is_answered_by_the_network_in_memory(tasks, capfd):
    for letter, limit, share in (("a", None, 0.4), ("b", None, 0.3), ("a", 4, 0.5)):
        evaluation = lm_eval.LmEval(Section(tasks=["letters"], include="tasks", limit=limit))
        evaluation.verify(tasks, downloaded=True)
        learner = Learner(letter)
        state = torch.get_rng_state()
        metrics = evaluation.measure(learner, tasks)
        assert torch.equal(torch.get_rng_state(), state)
        assert metrics["eval_lm_letters_acc"] == pytest.approx(share)
        assert set(metrics) <= {"eval_lm_letters_acc", "eval_lm_letters_acc_stderr"}
    assert "it/s" not in capfd.readouterr().err


def test_a_task_that_there_is_not_is_refused_before_anything_trains(tasks):
    evaluation = lm_eval.LmEval(Section(tasks=["lettres"], include="tasks"))
    with pytest.raises(
        Refused, match=r"lm_eval.tasks: got 'lettres', expected letters \(did you mean it\?\)"
    ):
        evaluation.verify(tasks, downloaded=True)


def test_a_task_whose_data_are_missing_is_refused(tasks):
    (tasks.folder / "letters.jsonl").unlink()
    evaluation = lm_eval.LmEval(Section(tasks=["letters"], include="tasks"))
    with pytest.raises(Refused, match=r"lm_eval.tasks: got letters: .*expected tasks whose data are here"):
        evaluation.measure(Learner("a"), tasks)


@pytest.mark.parametrize(
    ("section", "installed", "line"),
    [
        ({"tasks": ["a"]}, True, "evaluation.lm_eval: got some for a classifier, expected language_model"),
        (
            {"tasks": ["a"]},
            False,
            "evaluation.lm_eval: got one without the package lm_eval, expected pip install",
        ),
        (
            {"tasks": ["a"], "include": "no"},
            True,
            "evaluation.lm_eval.include: got 'no', expected a folder of",
        ),
        ({"tasks": ["a", "a"]}, True, "evaluation.lm_eval.tasks: got 'a' twice, expected each task once"),
        ({"tasks": []}, True, "evaluation.lm_eval.tasks: got "),
    ],
)
def test_a_scenario_that_cannot_ask_for_tasks_is_refused(section, installed, line, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "fedray.checks.find_spec", lambda name: (installed or None) if name == "lm_eval" else find(name)
    )
    changes = {"evaluation": {"lm_eval": section}}
    if "classifier" not in line:
        monkeypatch.setattr("fedray.scenario.model.Classifier.of_conversations", True)
        said = [{"prompt": f"question {i}", "completion": "answer"} for i in range(20)]
        (tmp_path / "said.jsonl").write_text("\n".join(map(json.dumps, said)))
        changes["data"] = {"kind": "instructions", "path": "said.jsonl", "partition": {"kind": "iid"}}
    with pytest.raises(ScenarioError) as caught:
        check(garments(tmp_path, changes))
    assert any(line in problem for problem in caught.value.problems), caught.value
