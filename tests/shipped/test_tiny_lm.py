"""tiny-lm, the language model that ships."""

import json

import pytest
import torch

from fedray import shipped

BASE = shipped.HERE / "tiny-lm"
CONVERSATION = [
    {"role": "user", "content": "Repeat: fox 12"},
    {"role": "assistant", "content": "fox 12"},
    {"role": "user", "content": "2 + 3 ="},
    {"role": "assistant", "content": "5"},
]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BASE)


def test_tiny_lm_is_under_8_mb_and_says_where_its_text_is_from():
    assert sum(file.stat().st_size for file in BASE.iterdir()) < 8e6
    card = json.loads((BASE / "training.json").read_text())
    assert card["command"].startswith("python tools/train_tiny_lm.py")
    assert {"package", "version", "package_sha256", "book_sha256", "seed", "tokens"} <= set(card)
    assert card["licence"] == "CC0-1.0"


def test_tiny_lm_opens_in_fp32_and_answers_in_its_own_words(tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(BASE)
    assert model.dtype == torch.float32
    asked = {"Repeat: fox lamp": "fox lamp", "What is 4 + 5?": "9", "Sort: 7 3": "3 7"}
    for question, answer in asked.items():
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        new = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True) == answer


def test_its_template_marks_the_assistants_turns_and_a_prompt_is_a_prefix(tokenizer):
    whole = tokenizer.apply_chat_template(CONVERSATION, return_dict=True, return_assistant_tokens_mask=True)
    said = [token for token, own in zip(whole["input_ids"], whole["assistant_masks"], strict=True) if own]
    assert tokenizer.decode(said) == "fox 12<|end|> 5<|end|>"
    for turns in (1, 3):
        prompt = tokenizer.apply_chat_template(
            CONVERSATION[:turns], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert whole["input_ids"][: len(prompt)] == prompt
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
