"""A base model that is not whole, not what is trained here, or not just weights: refused by file, before
anything is random."""

import json
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fedray import shipped
from fedray.learners.base_texts import cut_captions
from fedray.learners.bases import locate
from fedray.learners.contexts import LearnerContext
from fedray.learners.learners import NO_DATA
from fedray.learners.text_to_image import TextToImage
from fedray.scenario.base import Refused
from fedray.scenario.text_to_image import TextToImage as Section
from tests.helpers import UNSEEN, tiny

SCHEDULER, TOKENS = "scheduler/scheduler_config.json", "tokenizer/tokenizer"
UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


@pytest.fixture
def base(tmp_path):
    return shutil.copytree(shipped.HERE / "tiny-sd", tmp_path / "sd")


def edited(name, **changes):
    """Changes a JSON file; None takes a key away."""

    def edit(base):
        file = base / name
        value = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))

    return edit


def written(name, content):
    def write(base):
        (base / name).write_bytes(content)

    return write


def gone(name):
    def remove(base):
        place = base / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return remove


def cut_off(name):
    return lambda base: (base / name).write_bytes((base / name).read_bytes()[:-1000])


def linked(name, target):
    def link(base):
        (base / name).unlink()
        (base / name).symlink_to(target)

    return link


def renamed(name, new):
    return lambda base: (base / name).rename(base / new)


def quantized(base):
    tensors = load_file(base / UNET)
    first = next(iter(tensors))
    save_file(tensors | {first: tensors[first].to(torch.int8)}, base / UNET)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3438167534\n"
DAMAGES = {
    "another pipeline": (
        edited("model_index.json", _class_name="KandinskyPipeline"),
        "got a KandinskyPipeline (",
    ),
    "a pipeline of video": (
        edited("model_index.json", _class_name="CogVideoXPipeline"),
        "expected one that text_to_image trains: StableDiffusionPipeline, StableDiffusionXLPipeline",
    ),
    "SDXL by its name alone": (
        edited("model_index.json", _class_name="StableDiffusionXLPipeline"),
        "text_encoder_2 null in ",
    ),
    "an index that is a list": (
        written("model_index.json", b"[]"),
        "model_index.json, which is no JSON object",
    ),
    "an index that is broken": (written("model_index.json", b"{"), "model_index.json, which is no JSON ("),
    "another U-Net": (
        edited("model_index.json", unet=["diffusers", "UNetSpatioTemporalConditionModel"]),
        'unet ["diffusers", "UNetSp',
    ),
    "no text encoder": (
        edited("model_index.json", text_encoder=[None, None]),
        "text_encoder [null, null] in ",
    ),
    "no tokenizer": (gone("tokenizer"), "without {base}/tokenizer/vocab.json"),
    "no vocabulary": (gone("tokenizer/tokenizer.json"), "without {base}/tokenizer/vocab.json"),
    "a vocabulary that is none": (edited(f"{TOKENS}.json", model=[]), "tokenizer.json without a vocabulary"),
    "a vocabulary beyond the embeddings": (
        edited("text_encoder/config.json", vocab_size=100),
        "tokens up to number 375 in ",
    ),
    "added tokens beyond the embeddings": (
        written("tokenizer/added_tokens.json", b'{"<mine>": 376}'),
        "tokens up to number 376 in ",
    ),
    "a token of no number": (
        written("tokenizer/added_tokens.json", b'{"<mine>": null}'),
        "a token's number None in ",
    ),
    "another tokenizer": (
        edited(f"{TOKENS}_config.json", tokenizer_class="T5Tokenizer"),
        "tokenizer_class 'T5Tokenizer' in ",
    ),
    "a tokenizer without an end": (
        edited(f"{TOKENS}_config.json", model_max_length=None),
        "model_max_length None in ",
    ),
    "a tokenizer beyond the positions": (
        edited(f"{TOKENS}_config.json", model_max_length=200),
        "model_max_length 200 in ",
    ),
    "broken special tokens": (
        written("tokenizer/special_tokens_map.json", b"{"),
        "special_tokens_map.json, which is no JSON",
    ),
    "no autoencoder": (gone("vae"), "without {base}/vae/config.json"),
    "a broken tokenizer": (
        written("tokenizer/tokenizer.json", b'{"version"'),
        "{base}/tokenizer/tokenizer.json, which is no JSON",
    ),
    "a broken scheduler": (written(SCHEDULER, b"\xff"), "scheduler_config.json, which is no JSON"),
    "no scheduler": (gone("scheduler"), "without {base}/scheduler/scheduler_config.json"),
    "a prediction of samples": (edited(SCHEDULER, prediction_type="sample"), "prediction_type 'sample' in "),
    "flow matching": (
        edited(SCHEDULER, _class_name="FlowMatchEulerDiscreteScheduler"),
        "(flow matching), expected",
    ),
    "flow sigmas": (edited(SCHEDULER, use_flow_sigmas=True), "(flow matching), expected"),
    "EDM": (edited(SCHEDULER, _class_name="EDMEulerScheduler"), "(not what it is trained with)"),
    "unknown betas": (edited(SCHEDULER, beta_schedule="laplace"), "beta_schedule 'laplace' in "),
    "a beta that is a word": (edited(SCHEDULER, beta_end="a"), "and beta_end 'a' in "),
    "a beta above 1": (edited(SCHEDULER, beta_start=2.0), "beta_start 2.0 and beta_end"),
    "a beta that is left to the sampler": (
        edited(SCHEDULER, _class_name="HeunDiscreteScheduler", beta_start=None),
        "beta_start None and",
    ),
    "too few betas": (edited(SCHEDULER, trained_betas=[0.1, 0.2]), "trained_betas in "),
    "a learned variance": (
        edited(SCHEDULER, variance_type="learned_range"),
        "variance_type 'learned_range' in ",
    ),
    "noise to be told from noise": (
        edited(SCHEDULER, rescale_betas_zero_snr=True, prediction_type="epsilon"),
        "zero_snr and e",
    ),
    "betas that are no numbers": (
        edited(SCHEDULER, beta_start=float("nan")),
        "beta_start nan and beta_end 0.012 in ",
    ),
    "betas that fall": (edited(SCHEDULER, beta_start=0.5), "beta_start 0.5 and beta_end 0.012 in "),
    "captions too long": (
        edited("tokenizer/tokenizer_config.json", model_max_length=77),
        "at most 32, the text encoder's max_pos",
    ),
    "tokens unknown": (
        edited("text_encoder/config.json", vocab_size=10),
        "less than 10, the text encoder's vocab_size",
    ),
    "a vocabulary in words": (
        edited("text_encoder/config.json", vocab_size="x"),
        "less than 'x', the text encoder's vocab_size",
    ),
    "another class": (edited("unet/config.json", _class_name=["x"]), "['x'] in {base}/unet/config.json"),
    "an adapter in the root": (
        written("adapter_config.json", b"{}"),
        "an adapter ({base}/adapter_config.json)",
    ),
    "no timesteps": (edited(SCHEDULER, num_train_timesteps=0), "num_train_timesteps 0 in "),
    "inpainting": (edited("unet/config.json", in_channels=9), "in_channels 9 in "),
    "SDXL's embedding": (
        edited("unet/config.json", addition_embed_type="text_time"),
        "addition_embed_type 'text_time' in ",
    ),
    "LCM's embedding": (edited("unet/config.json", time_cond_proj_dim=256), "time_cond_proj_dim 256 in "),
    "boxes": (edited("unet/config.json", attention_type="gated"), "attention_type 'gated' in "),
    "a U-Net of video": (
        edited("unet/config.json", _class_name="UNetMotionModel"),
        "_class_name 'UNetMotionModel' in ",
    ),
    "a small autoencoder": (
        edited("vae/config.json", _class_name="AutoencoderTiny"),
        "_class_name 'AutoencoderTiny' in ",
    ),
    "another text encoder": (edited("text_encoder/config.json", model_type="t5"), "model_type 't5' in "),
    "latents of no scale": (edited("vae/config.json", scaling_factor=float("nan")), "scaling_factor nan in "),
    "text of another width": (
        edited("unet/config.json", cross_attention_dim=768),
        "cross_attention_dim 768 in ",
    ),
    "a shifted autoencoder": (edited("vae/config.json", shift_factor=0.06), "shift_factor in "),
    "quantization": (
        edited("text_encoder/config.json", quantization_config={"load_in_8bit": True}),
        "quantization_config in ",
    ),
    "quantization of all": (
        edited("model_index.json", quantization_config={"quant_backend": "bnb"}),
        "quantization_config in ",
    ),
    "a kernel": (
        edited("text_encoder/config.json", attn_implementation="kernels/flash"),
        "attn_implementation 'kernels/f",
    ),
    "code": (edited("unet/config.json", auto_map={"AutoModel": "mine.Model"}), "auto_map in "),
    "code of a tokenizer": (
        edited("tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": "mine.T"}),
        "auto_map in ",
    ),
    "an adapter": (
        written("text_encoder/adapter_config.json", b"{}"),
        "an adapter ({base}/text_encoder/adapter_config.json)",
    ),
    "a pointer": (
        written(UNET, LFS),
        "a pointer of Git LFS instead of weights, expected the weights (git lfs pull)",
    ),
    "another pointer": (
        written(TEXT, b"/annex/objects/SHA256E-s1--0.safetensors\n"),
        "a pointer of git-annex instead of weights",
    ),
    "a pointer to a tokenizer": (
        written(f"{TOKENS}.json", LFS),
        "tokenizer.json, a pointer of Git LFS instead of its content",
    ),
    "a link to what was not fetched": (
        linked(UNET, "../.git/annex/objects/x"),
        "a link to what is not there, expected its content (git",
    ),
    "an index beside the weights": (
        written(f"{UNET}.index.json", b"{"),
        "safetensors.index.json, which is no JSON",
    ),
    "cut off": (cut_off(UNET), "bytes, which is cut off: its header tells of "),
    "an empty file": (written(TEXT, b""), "of 0 bytes, which is cut off or no safetensors"),
    "a web page": (
        written(TEXT, b"<!doctype html><title>404</title>" + b" " * 5000),
        "which is cut off or no safetensors",
    ),
    "no weights": (gone(UNET), "{base}/unet without weights"),
    "pickles alone": (
        renamed(UNET, "unet/diffusion_pytorch_model.bin"),
        "diffusion_pytorch_model.bin alone, which are pickles",
    ),
    "a variant alone": (
        renamed(UNET, "unet/diffusion_pytorch_model.fp16.safetensors"),
        "diffusion_pytorch_model.fp16.safetensors alone",
    ),
    "whole numbers": (quantized, "in I8 in "),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_base_that_is_not_a_whole_stable_diffusion_is_refused_by_file(what, base):
    damage, expected = DAMAGES[what]
    damage(base)
    with pytest.raises(Refused) as caught:
        locate(str(base), Path())
    assert caught.value.key == "model.base"
    assert expected.replace("{base}", str(base)) in str(caught.value)


CHECK = """
import sys
from fedray.cli import main
sys.argv = ["fedray", "check", sys.argv[1]]
try:
    main()
finally:
    print("torch" in sys.modules)
"""


def test_check_says_it_with_file_and_line_and_without_torch(base, tmp_path):
    (base / UNET).write_bytes(LFS)
    file = tiny(tmp_path, UNSEEN | {"model.base": str(base)})
    done = subprocess.run([sys.executable, "-c", CHECK, file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "False\n")
    line = next(i for i, text in enumerate(file.read_text().splitlines(), 1) if "base:" in text)
    assert done.stderr.startswith(f"{file}:{line}: model.base: got {base / UNET}, a pointer of Git LFS")


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_a_single_file_is_told_how_to_become_a_folder(suffix, tmp_path):
    file = tmp_path / f"v1-5.{suffix}"
    file.write_bytes(b"\0" * 100)
    with pytest.raises(
        Refused,
        match=r"a single file, expected a folder: diffusers' StableDiffusionPipeline\.from_single_file\(",
    ) as caught:
        locate(file.name, tmp_path)
    assert ".save_pretrained('FOLDER'), then FOLDER" in caught.value.expected


META = LearnerContext(NO_DATA, device=torch.device("meta"))


def loaded(base):
    return TextToImage.load(Section(kind="text_to_image", base=str(base)), LearnerContext(NO_DATA))


def on_meta(base):
    return TextToImage.load(Section(kind="text_to_image", base=str(base)), META)


def test_names_of_older_versions_are_loaded_as_before(base):
    """CLIP's before transformers 5.6, with its positions; an autoencoder's attention in older diffusers."""
    vae = base / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    texts, pictures = load_file(base / TEXT), {}
    for name, tensor in load_file(vae).items():
        for new, before in old.items() if "attentions" in name else ():
            name = name.replace(new, before)
        pictures[name] = tensor
    assert any("proj_attn" in name for name in pictures)
    positions = {"text_model.embeddings.position_ids": torch.arange(32)[None]}
    save_file(
        {f"text_model.{n.removeprefix('text_model.')}": t for n, t in texts.items()} | positions, base / TEXT
    )
    save_file(pictures, vae)
    on_meta(base)
    ours, expected = loaded(base), loaded(shipped.HERE / "tiny-sd")
    for name, part in expected.parts.items():
        there = ours.parts[name].state_dict()
        assert all(torch.equal(there[key], tensor) for key, tensor in part.state_dict().items())


def test_a_base_of_the_hub_is_looked_at_once_it_is_loaded(base, tmp_path, monkeypatch):
    (tmp_path / "somebody").mkdir()
    hub = base.rename(tmp_path / "somebody" / "sd")
    monkeypatch.chdir(tmp_path)  # where the libraries find the name, and `locate` does not look
    section = Section(kind="text_to_image", base="somebody/sd")
    assert not locate("somebody/sd", tmp_path / "elsewhere").local
    edited(SCHEDULER, prediction_type="sample")(hub)
    for context in (META, LearnerContext(NO_DATA)):
        with pytest.raises(
            Refused, match=r"prediction_type 'sample' in somebody/sd/scheduler/scheduler_config\.json"
        ):
            TextToImage.load(section, replace(context, folder=tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("unet/config.json", {"sample_size": [8, 8]}, "which does not load (int() argument"),
        (
            "unet/config.json",
            {"norm_num_groups": 7},
            "which does not load (num_channels (64) must be divisible",
        ),
        (
            "text_encoder/config.json",
            {"num_hidden_layers": "two"},
            "which does not load (Validation error for field 'num_hidden_layers'",
        ),
        (
            "text_encoder/config.json",
            {"dtype": "float8"},
            "which does not load (module 'torch' has no attribute 'float8')",
        ),
    ],
)
def test_what_only_the_libraries_find_wrong_refuses_the_base_too(name, changes, words, base):
    edited(name, **changes)(base)
    for load in (on_meta, loaded):
        with pytest.raises(Refused, match=r"model\.base: got ") as caught:
            load(base)
        assert words in str(caught.value)


def test_memory_that_runs_out_is_no_fault_of_the_base(base, monkeypatch):
    def full(self, *_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(torch.OutOfMemoryError):
        loaded(base)


@pytest.mark.parametrize(
    ("file", "part"),
    [(UNET, "unet"), (TEXT, "text_encoder"), ("vae/diffusion_pytorch_model.safetensors", "vae")],
)
def test_missing_tensors_are_refused_by_name_and_never_drawn(file, part, base):
    tensors = load_file(base / file)
    lacking = sorted(tensors)[3:10]
    save_file({name: t for name, t in tensors.items() if name not in lacking}, base / file)
    with pytest.raises(Refused, match=rf"whose {part} lacks .* and 2 more, expected a whole one") as caught:
        loaded(base)
    assert lacking[0].removeprefix("text_model.") in str(caught.value)
    with pytest.raises(Refused) as planned:  # without the weights, from the file's header
        on_meta(base)
    assert str(planned.value) == str(caught.value)


@pytest.mark.parametrize(("file", "part"), [(UNET, "unet"), (TEXT, "text_encoder")])
def test_weights_that_are_not_numbers_are_refused_by_name(file, part, base):
    tensors = load_file(base / file)
    name = sorted(n for n in tensors if n.endswith(".weight"))[2]
    tensors[name].view(-1)[7] = float("nan")
    save_file(tensors, base / file)
    with pytest.raises(Refused, match=rf"whose {part} has numbers that are not finite in ") as caught:
        loaded(base)
    assert name.removeprefix("text_model.") in str(caught.value)


@pytest.mark.parametrize(("file", "name"), [(UNET, "conv_out.weight"), (TEXT, "final_layer_norm.weight")])
def test_tensors_of_another_shape_are_refused_by_name(file, name, base):
    tensors = load_file(base / file)
    (full,) = [n for n in tensors if n.endswith(name)]
    tensors[full] = torch.zeros(7, 7)
    save_file(tensors, base / file)
    with pytest.raises(Refused, match=rf"model\.base: got .*{name}"):
        loaded(base)


@pytest.mark.parametrize("file", [UNET, TEXT])
def test_tensors_that_no_part_has_are_refused_by_name_but_for_positions(file, base):
    tensors = load_file(base / file)
    save_file(tensors | {"text_model.embeddings.position_ids": torch.arange(32)[None]}, base / file)
    if file == TEXT:
        loaded(base)
    save_file(tensors | {"mine.weight": torch.zeros(3)}, base / file)
    with pytest.raises(Refused, match=r"has besides mine\.weight"):
        loaded(base)


def test_a_header_that_tells_of_other_bytes_than_its_shapes_is_refused(base):
    raw = (base / UNET).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    name = next(n for n in header if n.endswith("conv_in.bias"))
    header[name]["shape"] = [3]
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    (base / UNET).write_bytes(raw[:8] + text[:length] + raw[8 + length :])
    with pytest.raises(Refused, match=r"conv_in\.bias of shape \[3\] in .* bytes"):
        locate(str(base), Path())


def test_a_whole_base_in_shards_loads_the_same_weights(base):
    tensors = load_file(base / UNET)
    names = sorted(tensors)
    shards = {
        "diffusion_pytorch_model-00001-of-00002.safetensors": names[::2],
        "diffusion_pytorch_model-00002-of-00002.safetensors": names[1::2],
    }
    for file, some in shards.items():
        save_file({n: tensors[n] for n in some}, base / "unet" / file, metadata={"format": "pt"})
    index = base / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    size = sum(t.nbytes for t in tensors.values())
    index.write_text(
        json.dumps(
            {
                "metadata": {"total_size": size},
                "weight_map": {n: f for f, some in shards.items() for n in some},
            }
        )
    )
    (base / UNET).unlink()
    ours, expected = loaded(base), loaded(shipped.HERE / "tiny-sd")
    assert all(
        torch.equal(a, b)
        for a, b in zip(ours.parts["unet"].parameters(), expected.parts["unet"].parameters(), strict=True)
    )
    (base / "unet" / next(iter(shards))).unlink()
    with pytest.raises(
        Refused, match=r"without diffusion_pytorch_model-00001-of-00002\.safetensors, which its index names"
    ):
        locate(str(base), Path())


def test_a_local_base_never_asks_the_network(base, monkeypatch):
    def asks(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", asks)
    monkeypatch.setattr(socket, "getaddrinfo", asks)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    model = loaded(base)
    model.pipeline()
    TextToImage.load(model.section, META)
    assert cut_captions(model.base, ["a photo of a bag"]) is None


def test_captions_beyond_the_text_encoders_tokens_are_counted_and_the_first_is_shown():
    base = locate("tiny-sd", Path())
    most = json.loads((Path(base.source) / "tokenizer" / "tokenizer_config.json").read_text())[
        "model_max_length"
    ]
    long = "a bag " * most
    captions = ["a bag", long, "a shoe", "\x1b[31m" + long, long]
    note = cut_captions(base, captions)
    assert note.startswith(
        f"3 of 5 captions have more than the {most} tokens that the text encoder reads, and are cut; "
    )
    assert "; the first: a bag a bag" in note
    assert note.endswith("...")
    assert len(note) < 200
    assert cut_captions(base, captions[:1]) is None
    assert np.all([c.isprintable() for c in cut_captions(base, captions[3:4])])


def test_a_run_and_a_plan_say_that_captions_are_cut(tmp_path, fedray):
    data = shutil.copytree(shipped.HERE / "ink", tmp_path / "ink")
    metadata = sorted(data.rglob("metadata.jsonl"))[0]
    lines = [json.loads(line) for line in metadata.read_text().splitlines()]
    lines[0]["text"] = "a sneaker " * 100
    metadata.write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = tiny(tmp_path, UNSEEN | {"data.path": str(data), "training.rounds": 1})
    for verb in (["plan", file], ["run", file, "--quiet", "--out", tmp_path / "run"]):
        code, out, err = fedray(*verb)
        assert code == 0
        assert "1 of 20 captions have more than the" in (out + err).replace("\n", " ")
