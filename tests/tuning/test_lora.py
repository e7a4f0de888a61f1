import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedray import shipped
from fedray.checks import check
from fedray.learners.adapter_files import KOHYA_FILE
from fedray.learners.contexts import LearnerContext
from fedray.learners.learners import NO_DATA
from fedray.learners.text_to_image import TextToImage
from fedray.scenario import Refused
from fedray.scenario.tuning import Full, Lora, Partial
from fedray.tuning.tunings import tuning
from tests.helpers import PROMPT, UNSEEN, run, tiny

BASE = shipped.HERE / "tiny-sd"


def learner(compute=torch.float32):
    section = check(shipped.scenarios()["quickstart"]).scenario.model
    return TextToImage.load(section, LearnerContext(NO_DATA, compute=compute))


@pytest.fixture(scope="module", params=[8, 2.0], ids=["alpha as rank", "another alpha"])
def trained(request, tmp_path_factory):
    """The model folder of a run with a high learning rate, so that its adapter shows."""
    folder = tmp_path_factory.mktemp("lora")
    changes = {
        "tuning.alpha": request.param,
        "training.optimizer.learning_rate": 2e-2,
        "training.local_steps": 2,
        "training.rounds": 1,
    }
    run(tiny(folder, UNSEEN | changes), folder / "run")
    return folder / "run" / "model"


def picture(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    kwargs = {
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "output_type": "np",
        "generator": torch.Generator().manual_seed(0),
    }
    return pipeline(PROMPT, **kwargs).images[0]


def whole(folder):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def merged(trained):
    return picture(whole(trained))


def test_the_merged_pipeline_has_the_bases_size_and_other_pictures(trained, merged):
    base, pipeline = whole(BASE), whole(trained)
    for part in ("unet", "text_encoder", "vae"):
        theirs, ours = (
            dict(getattr(base, part).named_parameters()),
            dict(getattr(pipeline, part).named_parameters()),
        )
        assert {n: p.shape for n, p in theirs.items()} == {n: p.shape for n, p in ours.items()}
    assert np.abs(picture(base) - merged).max() > 0.05


@pytest.mark.parametrize("file", ["pytorch_lora_weights.safetensors", KOHYA_FILE])
def test_the_base_with_the_adapters_file_makes_the_merged_pipelines_picture(file, trained, merged):
    pipeline = whole(BASE)
    pipeline.load_lora_weights(trained, weight_name=file)
    assert np.abs(picture(pipeline) - merged).max() < 2 / 255


def test_the_adapters_file_is_found_without_its_name(trained, merged):
    pipeline = whole(BASE)
    pipeline.load_lora_weights(trained)
    assert np.abs(picture(pipeline) - merged).max() < 2 / 255


def test_only_the_targets_have_moved_and_by_the_product_of_the_adapter(trained):
    adapter = load_file(trained / "pytorch_lora_weights.safetensors")
    before = load_file(BASE / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(trained / "unet" / "diffusion_pytorch_model.safetensors")
    moved = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
    targets = {
        name.removeprefix("unet.").replace(".lora_A", "")
        for name in adapter
        if name.startswith("unet.") and "lora_A" in name
    }
    assert moved <= targets
    assert len(moved) > len(targets) * 0.9
    name = next(n for n in sorted(moved) if n.endswith("attn1.to_q.weight"))
    stem = "unet." + name.removesuffix(".weight")
    a, b = adapter[f"{stem}.lora_A.weight"], adapter[f"{stem}.lora_B.weight"]
    assert torch.allclose(before[name].float() + b.float() @ a.float(), after[name].float(), atol=1e-5)
    vae = [load_file(folder / "vae" / "diffusion_pytorch_model.safetensors") for folder in (BASE, trained)]
    assert all(torch.equal(vae[0][n].float(), vae[1][n].float()) for n in vae[0])


def test_kohyas_file_has_an_alpha_a_layer_and_the_names_comfyui_knows(trained):
    tensors = load_file(trained / KOHYA_FILE)
    alphas = [name for name in tensors if name.endswith(".alpha")]
    assert len(tensors) == 3 * len(alphas)
    assert all(
        f"{a.removesuffix('.alpha')}.lora_down.weight" in tensors
        and f"{a.removesuffix('.alpha')}.lora_up.weight" in tensors
        for a in alphas
    )
    assert all(a.startswith(("lora_unet_", "lora_te_text_model_encoder_layers_")) for a in alphas)
    assert any(a.startswith("lora_te_") for a in alphas)


def test_an_adapter_begins_as_nothing_and_from_the_seed():
    section = Lora(kind="lora", rank=4, targets="kohya")
    one, same, other = (tuning(section, seed).apply(learner()).travelling for seed in (0, 0, 1))
    assert list(one) == sorted(one)
    assert one.keys() == same.keys()
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert any(not torch.equal(one[n], other[n]) for n in one)
    assert all(not p.any() for n, p in one.items() if "lora_B" in n or ".up." in n)


def test_an_adapter_that_has_learned_nothing_leaves_the_loss_alone():
    model = learner()
    batch, _ = model.blank_batch()
    batch.text = model.tokenize([PROMPT])
    before = model.loss(batch)
    tuning(Lora(kind="lora", rank=4, targets="kohya"), 0).apply(model)
    assert torch.equal(model.loss(batch), before)


def test_only_what_a_tuning_names_trains():
    def trains(section):
        model = learner()
        named = tuning(section, 0).apply(model).travelling
        marked = {id(p) for part in model.parts.values() for p in part.parameters() if p.requires_grad}
        assert marked == {id(p) for p in named.values()}
        return model, named

    model, named = trains(Full(kind="full", parts=["unet"]))
    assert len(named) == len(list(model.parts["unet"].parameters()))
    assert not model.trains_text
    model, named = trains(Full(kind="full", parts=["unet", "text_encoder"]))
    assert model.trains_text
    model, named = trains(
        Partial(kind="partial", patterns=["unet.*.attn2.to_k.weight", "text_encoder.*layer_norm1.bias"])
    )
    assert named
    assert all(n.endswith(("attn2.to_k.weight", "layer_norm1.bias")) for n in named)
    assert model.trains_text
    model, named = trains(Lora(kind="lora", rank=2, targets="attention"))
    assert all(".to_" in n for n in named)
    assert not model.trains_text
    model, named = trains(Lora(kind="lora", rank=2, targets=["to_k"]))
    assert all(".to_k." in n for n in named)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (Lora(kind="lora", rank=2, targets=["to_z"]), "tuning.targets"),
        (Partial(kind="partial", patterns=["unet.*", "vae.*"]), "tuning.patterns"),
    ],
)
def test_names_that_nothing_has_are_refused(section, key):
    with pytest.raises(Refused) as caught:
        tuning(section, 0).apply(learner())
    assert caught.value.key == key


def test_a_full_and_a_partial_tuning_end_in_a_whole_pipeline(tmp_path):
    tuning = {"kind": "partial", "patterns": ["unet.*.attn2.to_k.weight"]}
    result = run(tiny(tmp_path, UNSEEN | {"tuning": tuning, "training.rounds": 1}), tmp_path / "run")
    before = load_file(BASE / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "run" / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    moved = {n for n in before if not torch.equal(before[n].float(), after[n].float())}
    assert moved
    assert all(n.endswith("attn2.to_k.weight") for n in moved)
    assert picture(whole(tmp_path / "run" / "model")).shape == (32, 32, 3)
    assert "model/model_index.json" in result["artifacts"]


def test_the_base_that_ships_is_untouched_by_runs(trained):
    """Its hash is in no file, but its own card's parameter counts are."""
    card = json.loads((BASE / "training.json").read_text())["parameters"]
    pipeline = whole(BASE)
    assert card == {part: sum(p.numel() for p in getattr(pipeline, part).parameters()) for part in card}


@pytest.mark.parametrize("targets", [["to_q", "to_qq"], ["to_q", "q_proj"]])
def test_a_target_that_no_layer_has_is_refused_beside_those_that_some_have(targets, tmp_path, fedray):
    code, _, err = fedray("plan", tiny(tmp_path, {"tuning": {"kind": "lora", "rank": 2, "targets": targets}}))
    assert code == 2
    assert f"tuning.targets: got {targets[1]!r}, expected names of layers of the unet" in err
