"""A language model's loss, adapters and files are those of transformers and peft."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.language_model import LanguageModel
from fedray.learners.learners import NO_DATA
from fedray.learners.micro_batches import micro_batches
from fedray.learners.stages import inputs, run
from fedray.learners.transformer import UNJUDGED, Tokens
from fedray.scenario.base import Refused
from fedray.scenario.language_model import LanguageModel as Section
from fedray.scenario.tuning import Lora
from fedray.transport.buffer import Layout
from fedray.tuning.lora import LoraTuning
from tests.learners import tiny_language
from tests.learners.tiny_language import conversations

ALL = conversations(
    [("user", "say red"), ("assistant", "red")],
    [("user", "say blue please please"), ("assistant", "blue blue blue")],
    [
        ("system", "green"),
        ("user", "say"),
        ("assistant", "green"),
        ("user", "say white"),
        ("assistant", "white"),
    ],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("language")


def base(folder: Path, kind: str = "llama", name: str = "", **changes) -> Path:
    place = folder / (name or kind)
    return place if place.exists() else tiny_language.base(place, kind, **changes)


def learner(
    place: Path, in_stages: bool = False, compute: torch.dtype = torch.float32, **options
) -> LanguageModel:
    section = Section(kind="language_model", base=str(place), **({"max_length": 48} | options))
    context = LearnerContext(NO_DATA, compute=compute, in_stages=in_stages)
    return LanguageModel.load(section, context)


def batch_of(made: LanguageModel, samples=ALL) -> Tokens:
    return made.encode(samples, np.arange(len(samples)))


def theirs(network, batch: Tokens) -> torch.Tensor:
    """transformers' loss of the same tokens, whose labels it shifts itself."""
    labels = torch.cat([torch.full((len(batch.tokens), 1), UNJUDGED), batch.targets[:, :-1]], 1)
    return network(input_ids=batch.tokens, labels=labels).loss


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_a_steps_loss_is_transformers_own_padded_and_packed(folder, kind):
    place = base(folder, kind)
    plain = learner(place)
    packed = learner(place, packing=True)
    batch = batch_of(plain)
    with torch.no_grad():
        expected = float(theirs(plain.network, batch))
        assert float(plain.loss(batch)) == pytest.approx(expected, abs=1e-5)
        assert float(packed.loss(batch)) == pytest.approx(expected, abs=1e-5)
        pieces = micro_batches(plain, batch, 3, 2)
        in_parts = sum(share * float(packed.loss(piece)) for piece, share in pieces)
        assert in_parts == pytest.approx(expected, abs=1e-5)
        weighted = Tokens(batch.tokens, batch.targets, torch.tensor([1.0, 0.0, 0.0]))
        alone = Tokens(batch.tokens[:1], batch.targets[:1])
        share = float((alone.targets != UNJUDGED).sum() / (batch.targets != UNJUDGED).sum())
        for one in (plain, packed):
            assert float(one.loss(weighted)) == pytest.approx(share * float(one.loss(alone)), abs=1e-5)


@pytest.mark.parametrize("kind", ["gemma", "llama", "mistral", "qwen2", "qwen3"])
def test_stages_together_are_the_network_whose_tied_head_has_weights_of_its_own(folder, kind):
    made = learner(base(folder, kind, name=f"tied-{kind}", tie_word_embeddings=True), in_stages=True)
    batch = batch_of(made)
    with torch.no_grad():
        whole = float(theirs(made.network, batch))
        assert float(run(made.stages, inputs(batch))["loss"]) == pytest.approx(whole, abs=1e-5)
    assert [stage.name for stage in made.stages] == ["embed", "layer_0", "layer_1", "head", "loss"]
    owned = [id(p) for stage in made.stages for module in stage.modules for p in module.parameters()]
    assert len(owned) == len(set(owned)) == len(list(made.network.parameters()))
    made.save(folder / f"untied-{kind}")
    again = learner(folder / f"untied-{kind}")
    with torch.no_grad():
        assert float(again.loss(batch)) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("packing", [False, True])
def test_micro_batches_of_unequal_numbers_of_tokens_add_up_to_the_mean_over_all_tokens(folder, packing):
    made = learner(base(folder), packing=packing)
    made.network.requires_grad_(True)
    batch = batch_of(made)
    made.loss(batch).backward()
    whole = {name: p.grad.clone() for name, p in made.network.named_parameters()}
    made.network.zero_grad()
    pieces = list(micro_batches(made, batch, 3, 1))
    assert [round(share * batch.judged) for _, share in pieces] == [
        int((one != UNJUDGED).sum()) for one in batch.targets
    ]
    for piece, share in pieces:
        (share * made.loss(piece)).backward()
    for name, p in made.network.named_parameters():
        torch.testing.assert_close(p.grad, whole[name], rtol=0, atol=1e-6)


def test_samples_whose_answers_are_cut_away_teach_nothing_and_give_no_nan(folder):
    made = learner(base(folder), max_length=4)
    batch = batch_of(made)
    assert (batch.targets == UNJUDGED).all()
    for packing in (False, True):
        cut = learner(base(folder), max_length=4, packing=packing)
        cut.network.requires_grad_(True)
        loss = cut.loss(batch)
        loss.backward()
        assert float(loss) == 0.0
        assert not any(p.grad is not None and p.grad.any() for p in cut.network.parameters())
    section = made.section
    with pytest.raises(Refused, match="max_length: got 4 tokens, in which no conversation has any"):
        LanguageModel.notes(section, Path(), ALL, None)
    (note,) = LanguageModel.notes(section.model_copy(update={"max_length": 16}), Path(), ALL, None)
    assert note == (
        "2 of 3 conversations have more than model.max_length, 16 tokens, and are cut; 1 of them lose all"
        " that the assistant says, and teach nothing"
    )
    with pytest.raises(ValueError, match="no answer within"):
        made.measure(ALL, np.arange(3))


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("llama", "attention"),
        ("llama", "all-linear"),
        ("gpt2", "attention"),
        ("qwen2", ["o_proj", "down_proj"]),
    ],
)
def test_an_adapter_has_pefts_names_and_opens_in_peft_with_the_same_logits(folder, tmp_path, kind, targets):
    from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = base(folder, kind)
    made = learner(place)
    tokens = batch_of(made).tokens[:, :8]
    section = Lora(kind="lora", rank=4, alpha=6.0, rslora=True, targets=targets)
    tuning = LoraTuning(section, seed=5)
    chosen = tuning.apply(made).travelling
    layout = Layout.of(chosen, "fp32")
    with torch.no_grad():
        for name, tensor in chosen.items():
            if "lora_B" in name:
                tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name))))
        expected = made.network(input_ids=tokens).logits
        tuning.export(made, layout, tmp_path)
        original = AutoModelForCausalLM.from_pretrained(place)
        names = None if targets == "attention" else targets
        config = LoraConfig(r=4, target_modules=names, task_type="CAUSAL_LM")
        adapted = get_peft_model(original, config)
        assert set(layout.names) == set(get_peft_model_state_dict(adapted))
        opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(place), tmp_path / "adapter")
        assert torch.allclose(opened(input_ids=tokens).logits, expected, atol=1e-5)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.allclose(merged(input_ids=tokens).logits, expected, atol=1e-5)
    original = AutoModelForCausalLM.from_pretrained(place)
    assert not torch.allclose(original(input_ids=tokens).logits, expected, atol=1e-3)
    ours = made.template.tokenizer.apply_chat_template(
        [{"role": "user", "content": "say red"}], tokenize=False
    )
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.apply_chat_template([{"role": "user", "content": "say red"}], tokenize=False) == ours


def test_adapters_begin_as_pefts_own_and_come_from_the_seed(folder):
    def first(seed: int) -> dict[str, torch.Tensor]:
        tuning = LoraTuning(Lora(kind="lora", rank=4), seed)
        return {
            name: t.detach().clone() for name, t in tuning.apply(learner(base(folder))).travelling.items()
        }

    one, same, other = first(0), first(0), first(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    for name, tensor in one.items():
        if "lora_A" in name:  # Kaiming's uniform with a = sqrt(5): within 1 / sqrt(inputs)
            assert tensor.abs().max() <= tensor.shape[1] ** -0.5
            assert not torch.equal(tensor, other[name])
        else:
            assert not tensor.any()


def test_a_head_with_the_embeddings_weights_gets_no_adapter(folder):
    tied = base(folder, name="tied-llama", tie_word_embeddings=True)
    section = Lora(kind="lora", rank=4, targets=["lm_head"])
    with pytest.raises(Refused, match=r"tuning\.targets: got 'lm_head'.*embedding's weights"):
        LoraTuning(section, 0).apply(learner(tied))
    LoraTuning(section, 0).apply(learner(base(folder)))  # its own


def test_answers_follow_their_seeds_and_greedy_ones_are_transformers_own(folder):
    made = learner(base(folder))
    with torch.no_grad():
        made.network.lm_head.weight.mul_(40)  # so that not all tokens are as likely
    sampling = Sampling(new_tokens=8, temperature=1.0)
    both = made.sample(["say red", "say blue"], [1, 2], sampling)
    assert both[1] == made.sample(["say blue"], [2], sampling)[0]
    assert both[1] != made.sample(["say blue"], [3], sampling)[0]
    ids = torch.tensor([made.template.prompt([("user", "say red")])])
    written = made.network.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=2, pad_token_id=0)
    text = made.template.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
    assert made.answer([("user", "say red")], 8) == text.strip()
    asked = [[("user", "say red")], [("user", "say red red red and blue")], [("user", "blue")]]
    for length in (8, 60):  # of 60, the positions leave room for fewer, and not for all as many
        assert made.likeliest_answers(asked, length) == [made.answer(turns, length) for turns in asked]
    with pytest.raises(Refused, match=r"prompt of \d+ tokens, expected less than 64"):
        made.answer([("user", "red " * 80)], 8)
