import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from fedray.checks import check
from fedray.data import dataset_info, open_source
from fedray.data.tokenizer import MASK
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.learners import on_meta
from fedray.learners.stages import inputs, needed, run
from fedray.learners.transformer import UNJUDGED, Masked, Tokens, Transformer, some
from fedray.planning.plan import plan
from fedray.scenario import Refused, ScenarioError
from fedray.scenario.data import FashionMnistMini, Text
from fedray.scenario.model import Transformer as Section
from tests import helpers
from tests.helpers import garments, rows

HERE = Path(__file__).parent
TEXT = {"kind": "text", "path": "shipped:shakespeare", "length": 16, "partition": {"kind": "folder"}}
WORDS = Text.model_validate(TEXT)
MINI = {"kind": "fashion_mnist_mini", "partition": {"kind": "iid"}}
GARMENTS = FashionMnistMini.model_validate(MINI)
LANGUAGES, PICTURES = ["masked_language", "causal_language"], ["classification", "masked_image"]


def data(objective):
    return WORDS if objective in LANGUAGES else GARMENTS


def learner(objective, device="cpu", compute=torch.float32, seed=0, trains=True, **changes):
    section = Section(
        kind="transformer", objective=objective, **{"width": 16, "layers": 2, "heads": 2, **changes}
    )
    dataset = dataset_info(data(objective), HERE)
    context = LearnerContext(dataset, seed=seed, device=torch.device(device), compute=compute)
    made = Transformer.load(section, context)
    if trains:
        made.network.requires_grad_(True)
    return made


def batch(made, n=4, seed=0):
    samples = open_source(data(made.section.objective), HERE)
    return made.draw(made.encode(samples, np.arange(n)), np.arange(n), torch.Generator().manual_seed(seed))


def theirs(made, b):
    """What transformers' own forward pass makes of a batch."""
    if made.section.objective == "masked_language":
        return made.network(b.tokens, labels=b.targets)
    if made.section.objective == "causal_language":
        return made.network(b.tokens, labels=b.tokens)
    if made.section.objective == "classification":
        return made.network(b.images, labels=b.labels)
    return made.network(b.images, bool_masked_pos=b.masks)


@pytest.mark.parametrize("objective", LANGUAGES + PICTURES)
def test_the_stages_together_are_transformers_own_loss(objective):
    made = learner(objective)
    made.prepare_training(False)
    b = batch(made)
    assert made.loss(b).item() == pytest.approx(theirs(made, b).loss.item(), rel=1e-6)
    assert [s.name for s in made.stages] == ["embed", "layer_0", "layer_1", "head", "loss"]
    assert set(needed(made.stages)) == inputs(b).keys()


@pytest.mark.parametrize("objective", LANGUAGES + PICTURES)
def test_every_weight_belongs_to_exactly_one_stage(objective):
    made = learner(objective)
    of_stages = [id(p) for stage in made.stages for module in stage.modules for p in module.parameters()]
    assert sorted(of_stages) == sorted(id(p) for p in made.parts["network"].parameters())


@pytest.mark.parametrize("objective", LANGUAGES + PICTURES)
def test_a_step_cut_anywhere_has_the_gradients_of_the_whole(objective):
    made = learner(objective)
    b = batch(made)
    weights = list(made.network.parameters())
    whole = torch.autograd.grad(made.loss(b), weights, allow_unused=True)
    for place in range(1, len(made.stages)):
        sent = run(made.stages[:place], inputs(b))["x"]
        received = sent.detach().requires_grad_()
        above = run(made.stages[place:], inputs(b) | {"x": received})["loss"]
        *top, back = torch.autograd.grad(above, [*weights, received], allow_unused=True)
        bottom = torch.autograd.grad(sent, weights, back, allow_unused=True)
        for one, low, high in zip(whole, bottom, top, strict=True):
            assert low is None or high is None  # nothing trains on both sides of a cut
            mine = low if high is None else high
            assert mine is one or torch.allclose(mine, one, atol=1e-7)


@given(st.integers(1, 15))
def test_a_later_token_changes_nothing_before_it(place):
    made = learner("causal_language", trains=False)
    tokens = batch(made).tokens
    changed = tokens.clone()
    changed[:, place] = (tokens[:, place] + 1) % 257
    a, b = (run(made.stages[:-1], {"tokens": t})["x"] for t in (tokens, changed))
    assert torch.allclose(a[:, :place], b[:, :place], atol=1e-6)
    assert not torch.allclose(a[:, place:], b[:, place:], atol=1e-4)


def test_each_token_is_asked_for_from_those_before_it():
    b = batch(learner("causal_language"))
    assert torch.equal(b.targets[:, :-1], b.tokens[:, 1:])
    assert (b.targets[:, -1] == UNJUDGED).all()


@given(st.integers(1, 5), st.integers(2, 100), st.floats(0.001, 0.999))
def test_every_row_has_the_same_number_chosen(n, length, share):
    chosen = some(n, length, share, torch.Generator().manual_seed(0))
    number = min(max(round(share * length), 1), length - 1)
    assert chosen.shape == (n, length)
    assert chosen.sum(1).tolist() == [number] * n


def test_of_the_tokens_asked_for_80_percent_are_masked_10_are_others_and_10_themselves():
    made = learner("masked_language", masked=0.5)
    shard = torch.randint(1, 257, (2000, 16), generator=torch.Generator().manual_seed(1))
    b = made.draw(shard, np.arange(2000), torch.Generator().manual_seed(0))
    judged = b.targets != UNJUDGED
    assert judged.sum(1).eq(8).all()
    assert torch.equal(b.tokens[~judged], shard[~judged])
    assert torch.equal(b.targets[judged], shard[judged])
    given, true = b.tokens[judged], shard[judged]
    assert (given == 0).float().mean().item() == pytest.approx(0.8, abs=0.015)
    assert (given == true).float().mean().item() == pytest.approx(0.1 + 0.1 / 256, abs=0.01)
    others = given[(given != 0) & (given != true)]
    assert len(others.unique()) > 240
    again = made.draw(shard, np.arange(2000), torch.Generator().manual_seed(0))
    assert torch.equal(again.tokens, b.tokens)


def test_half_of_an_images_patches_are_hidden_and_only_they_are_judged():
    made = learner("masked_image")
    b = batch(made)
    assert isinstance(b, Masked)
    assert b.masks.sum(1).tolist() == [round(49 / 2)] * 4
    x = b.images.clone()
    hidden = b.masks.view(4, 1, 7, 7).repeat_interleave(4, 2).repeat_interleave(4, 3)
    x[~hidden] += 5
    assert made.stages[-1].run(x, b.images, b.masks).item() == 0
    x[hidden] += 0.25
    assert made.stages[-1].run(x, b.images, b.masks).item() == pytest.approx(0.25)


def test_work_is_counted_on_meta_with_the_attention_and_no_memory():
    """Multiplications of a layer: 12 width^2 a token for its projections, 2 length width for attention;
    backward, twice."""
    made = learner("masked_language", device="meta")
    with FlopCounterMode(display=False) as counter:
        made.loss(made.blank_batch()[0]).backward()
    width, length, words = 16, 16, 257
    layer = length * (12 * width**2 + 2 * length * width)
    head = length * (width**2 + width * words)
    assert counter.get_total_flops() == 3 * 2 * (2 * layer + head)


@pytest.mark.parametrize("objective", LANGUAGES + PICTURES)
def test_a_blank_batch_is_like_a_real_one(objective):
    made = learner(objective)
    blank, n = made.blank_batch()
    assert torch.isfinite(made.loss(blank))
    for name, real in inputs(batch(made, n)).items():
        like = getattr(blank, name)
        assert (like.shape, like.dtype) == (real.shape, real.dtype)


@pytest.mark.parametrize(
    ("objective", "auto"),
    [("masked_language", "AutoModelForMaskedLM"), ("causal_language", "AutoModelForCausalLM")],
)
def test_a_saved_language_model_opens_with_its_tokenizer(objective, auto, tmp_path):
    import transformers

    made = learner(objective, trains=False)
    made.save(tmp_path)
    assert (tmp_path / made.weights_file).is_file()
    network = getattr(transformers, auto).from_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    b = batch(made)
    with torch.no_grad():
        assert torch.allclose(network(b.tokens).logits, theirs(made, b).logits, atol=1e-6)
    text = "O Romeo, Romeo! wherefore art thou Romeo?"
    assert tokenizer(text).input_ids == made.context.dataset.tokenizer.encode(text).ids
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert (tokenizer.mask_token, tokenizer.mask_token_id, len(tokenizer)) == (MASK, 0, 257)
    assert tokenizer(f"a{MASK}").input_ids[-1] == 0


@pytest.mark.parametrize(
    ("objective", "auto"),
    [
        ("classification", "AutoModelForImageClassification"),
        ("masked_image", "AutoModelForMaskedImageModeling"),
    ],
)
def test_a_saved_vision_model_opens(objective, auto, tmp_path):
    import transformers

    made = learner(objective, trains=False)
    made.save(tmp_path)
    network, b = getattr(transformers, auto).from_pretrained(tmp_path), batch(made)
    with torch.no_grad():
        assert torch.allclose(network(b.images)[0], made.network(b.images)[0], atol=1e-6)
    if objective == "classification":
        assert network.config.id2label[9] == "ankle boot"


@pytest.mark.parametrize("objective", LANGUAGES + PICTURES)
def test_weights_are_drawn_from_the_seed_and_from_nothing_else(objective):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b, c = (list(learner(objective, seed=seed).network.parameters()) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a, c, strict=True))


def test_a_head_of_zeros_knows_nothing_of_any_token():
    for objective in LANGUAGES:
        made = learner(objective, trains=False)
        head = (
            made.network.cls.predictions.decoder if objective == "masked_language" else made.network.lm_head
        )
        for p in head.parameters():
            p.zero_()
        _, loss = made.test(open_source(WORDS, HERE, "test"), np.arange(50))
        assert math.exp(loss) == pytest.approx(257, rel=1e-5)


@pytest.mark.parametrize("objective", LANGUAGES + PICTURES)
def test_the_test_set_gives_the_same_answer_each_time_whatever_the_chunks(objective, monkeypatch):
    made, samples = learner(objective, dropout=0.5), open_source(data(objective), HERE, "test")
    made.prepare_training(False)
    chosen = np.arange(41)
    accuracy, loss = made.test(samples, chosen)
    assert made.test(samples, chosen) == (accuracy, loss)
    assert made.network.training
    made.network.eval()
    b = made.draw(made.encode(samples, chosen), np.arange(41), torch.Generator())
    if objective in ("causal_language", "classification"):  # nothing is drawn
        logits = theirs(made, b).logits
        targets = b.targets if isinstance(b, Tokens) else b.labels
        judged = targets != UNJUDGED
        assert accuracy == pytest.approx((logits.argmax(-1) == targets)[judged].float().mean().item())
        assert loss == pytest.approx(theirs(made, b).loss.item(), rel=1e-5)
        monkeypatch.setattr("fedray.learners.transformer.CHUNK", 7)
        assert made.test(samples, chosen) == (pytest.approx(accuracy), pytest.approx(loss, rel=1e-5))
    assert (accuracy is None) == (objective == "masked_image")


def test_a_causal_model_goes_on_from_a_prompt_each_text_by_its_own_seed_alone():
    made = learner("causal_language", dropout=0.5)
    made.prepare_training(False)
    both = made.sample(["To be", "Exit"], [1, 2], Sampling(new_tokens=30, temperature=1.0))
    assert [text.startswith(prompt) for text, prompt in zip(both, ("To be", "Exit"), strict=True)] == [
        True,
        True,
    ]
    assert made.sample(["Exit"], [2], Sampling(new_tokens=30, temperature=1.0)) == both[1:]
    assert made.sample(["Exit"], [3], Sampling(new_tokens=30, temperature=1.0)) != both[1:]
    assert made.sample([""], [3], Sampling(new_tokens=1, temperature=1.0))[0].startswith("\n")
    assert made.network.training


def test_a_cold_model_writes_the_likeliest_token_and_sees_as_many_as_a_sample_has():
    made = learner("causal_language")
    (text,) = made.sample(["O Romeo"], [0], Sampling(new_tokens=20, temperature=1e-6))
    tokens = made.context.dataset.tokenizer.encode("O Romeo").ids
    for _ in range(20):
        with torch.no_grad():
            logits = made.network(torch.tensor([tokens[-16:]])).logits[0, -1]
        tokens.append(1 + int(logits[1:].argmax()))  # never [MASK]
    assert text == made.context.dataset.tokenizer.decode(tokens)


@pytest.mark.parametrize("objective", LANGUAGES + PICTURES)
def test_checkpointed_layers_run_twice_for_the_same_gradients_with_dropout_too(objective):
    found, runs = [], []
    for checkpointing in (False, True):
        made = learner(objective, dropout=0.2)
        made.prepare_training(checkpointing)
        runs.append([])
        next(made.stages[1].modules[0].children()).register_forward_hook(
            lambda *_, seen=runs[-1]: seen.append(1)
        )
        torch.manual_seed(3)
        made.loss(batch(made)).backward()
        found.append([p.grad for p in made.network.parameters() if p.grad is not None])
    assert [len(seen) for seen in runs] == [1, 2]
    assert len(found[0]) == len(found[1])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("objective", LANGUAGES + PICTURES)
def test_bf16_computes_nearly_the_same_loss_in_fp32(objective):
    exact, half = learner(objective), learner(objective, compute=torch.bfloat16)
    loss = half.loss(batch(half))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.loss(batch(exact)).item(), rel=0.02)
    assert run(half.stages[:-1], vars(batch(half)))["x"].dtype == torch.bfloat16


@pytest.mark.parametrize("patch", [5, 28, 29])
def test_images_are_cut_into_several_whole_patches(patch):
    with pytest.raises(
        Refused,
        match=rf"model\.patch: got {patch}, expected a proper divisor of the images' 28 pixels a side",
    ):
        learner("masked_image", patch=patch)
    assert learner("masked_image", patch=16, resolution=32).side == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.heads": 3}, "model.heads: got 3, expected a divisor of model.width, 16"),
        ({"model.masked": 0.0}, "model.masked"),
        ({"model.resolution": 32}, "model.resolution: got 32, expected none for text"),
        (
            {"model.objective": "causal_language", "model.masked": 0.2},
            "model.masked: got 0.2, expected none for causal_language",
        ),
        (
            {"data": MINI},
            (
                "model.objective: got masked_language on fashion_mnist_mini, expected classification or"
                " masked_image"
            ),
        ),
        ({"model.objective": "classification"}, "model.objective: got classification on text"),
        (
            {"tuning": {"kind": "lora", "rank": 4}},
            "tuning.kind: got lora, expected full or partial for transformer",
        ),
        (
            {"evaluation.prompts": ["To be"]},
            (
                "evaluation.prompts: got some for a transformer, expected text_to_image or a causal_language"
                " model"
            ),
        ),
        ({"evaluation.quality": {}}, "evaluation.quality: got some for a transformer"),
    ],
)
def test_what_a_transformer_cannot_go_with_is_refused(changes, message, tmp_path):
    with pytest.raises(ScenarioError, match=message):
        check(scenario(tmp_path, **changes))


def scenario(folder, **changes):
    model = {"kind": "transformer", "objective": "masked_language", "width": 16, "layers": 1, "heads": 2}
    return garments(
        folder, {"data": TEXT, "model": model, "population": {"clients": 10, "per_round": 3}, **changes}
    )


def test_a_part_of_it_may_train_alone(tmp_path):
    loaded = check(scenario(tmp_path, tuning={"kind": "partial", "patterns": ["network.bert.encoder.*"]}))
    found = plan(loaded)
    made = on_meta(loaded.scenario, loaded.folder)
    assert found["trainable_parameters"] == sum(p.numel() for p in made.network.bert.encoder.parameters())
    assert found["parameters"] == sum(p.numel() for p in made.network.parameters())
    assert found["payload_bytes"] == 4 * found["trainable_parameters"]


def test_ten_speakers_teach_a_model_that_predicts_better_than_a_coin_of_257_sides(tmp_path):
    steps = {
        "rounds": 3,
        "local_steps": 6,
        "batch_size": 16,
        "optimizer": {"kind": "adamw", "learning_rate": 0.02},
    }
    file = scenario(tmp_path, training=steps)
    result = helpers.run(file, tmp_path / "run")
    seen = [
        json["eval_perplexity"]
        for json in rows(tmp_path / "run" / "metrics.jsonl")
        if "eval_perplexity" in json
    ]
    assert result["final"]["eval_perplexity"] == pytest.approx(math.exp(result["final"]["eval_loss"]))
    assert seen[-1] < 60
    assert 0.05 < result["final"]["eval_accuracy"] < 1
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        p.name for p in (tmp_path / "run" / "model").iterdir()
    }
    assert "devlin2019bert" in (tmp_path / "run" / "CITATION.bib").read_text()


@pytest.mark.parametrize("objective", ["causal_language", *PICTURES])
def test_a_relay_hands_any_of_them_on(objective, tmp_path):
    changes = {"topology": {"kind": "relay"}, "model.objective": objective, "training.rounds": 1}
    if objective in PICTURES:
        changes["data"] = MINI
    result = helpers.run(scenario(tmp_path, **changes), tmp_path / "run")
    judged = {k for k in result["final"] if k.startswith("eval_")}
    accuracy, perplexity = (
        ["eval_accuracy"] * (objective != "masked_image"),
        ["eval_perplexity"] * (objective in LANGUAGES),
    )
    assert judged == {
        "eval_loss",
        *accuracy,
        *perplexity,
        *["eval_samples"] * (objective == "classification"),
    }
