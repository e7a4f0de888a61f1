"""Shipped chat templates write an instruction as the projects do that they are named by."""

import json

import pytest

from fedray import shipped
from fedray.data.instruction_forms import conversation
from fedray.learners.chat_template import ChatTemplate
from tests.evaluation.test_lm_eval import tokenizer

ROW = {"instruction": "Add the numbers.", "input": "2 and 2", "output": "4"}
FIRST = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
PAIRED = (  # github.com/tatsu-lab/stanford_alpaca, train.py, prompt_input
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)


def template(name):
    tokens = tokenizer()
    tokens.chat_template = (shipped.HERE / name).read_text()
    return ChatTemplate(tokens, name)


@pytest.mark.parametrize(
    ("name", "given", "text", "answer"),
    [
        # github.com/adap/flower, examples/flowertune-llm-*/dataset.py
        (
            "flowertune",
            "append",
            f"{FIRST}\n### Instruction:\nAdd the numbers. 2 and 2\n### Response: 4",
            "4",
        ),
        ("flowertune", "alone", f"{FIRST}\n### Instruction:\n2 and 2\n### Response: 4", "4"),
        ("flowertune", "ignore", f"{FIRST}\n### Instruction:\nAdd the numbers.\n### Response: 4", "4"),
        # github.com/rui-ye/OpenFedLLM, utils/template.py, with what ends a text behind it
        (
            "openfedllm",
            "append",
            f"{FIRST}\n\n### Instruction:\nAdd the numbers. 2 and 2 \n\n### Response: 4!",
            "4!",
        ),
        ("alpaca", "alpaca", PAIRED.format(**ROW) + "\n4!", "4!"),
        ("alpaca", "ignore", f"{FIRST}\n\n### Instruction:\nAdd the numbers.\n\n### Response:\n4!", "4!"),
    ],
)
def test_a_template_writes_an_instruction_as_its_project_does(name, given, text, answer):
    written = template(f"{name}.jinja")
    written.verify()
    turns = conversation(json.loads(json.dumps(ROW)), given)
    encoded = written.encode(turns)
    assert written.tokenizer.decode(encoded.ids) == text
    said = [i for i, judged in zip(encoded.ids, encoded.judged, strict=True) if judged]
    assert written.tokenizer.decode(said) == answer
    prompt = written.tokenizer.decode(written.prompt(turns[:-1]))
    assert text.startswith(prompt)
    assert prompt.rstrip().endswith("### Response:")
