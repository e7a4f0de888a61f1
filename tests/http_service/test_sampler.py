import io
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fedray.generate import generate
from fedray.http_service.requests import ImageRequest
from fedray.http_service.runs import read_runs
from fedray.http_service.sampler import Sampler
from fedray.scenario import ScenarioError
from tests import helpers

CPU = torch.device("cpu")


def test_a_model_of_images_from_noise_alone_is_served_too(tmp_path):
    gan = {"kind": "gan", "conditional": False, "width": 8, "latent": 6, "resolution": 8}
    changes = {"model": gan, "training.rounds": 1, "evaluation": {"every": 1}}
    helpers.run(helpers.garments(tmp_path, changes), tmp_path / "run")
    runs = read_runs([tmp_path / "run"])
    assert runs[0].takes_prompts is False
    made = Sampler(runs, CPU).sample(ImageRequest("run", "", 3, runs[0].steps, runs[0].guidance))
    generate(tmp_path / "run", [], tmp_path / "one.png", seed=3)
    assert made.png == (tmp_path / "one.png").read_bytes()
    assert Image.open(io.BytesIO(made.png)).size == (8, 8)


def test_an_adapter_that_is_not_the_runs_own_is_refused_in_a_line(unbroken, other, tmp_path):
    run = shutil.copytree(other, tmp_path / "run2")
    file = run / "model" / "pytorch_lora_weights.safetensors"
    tensors = load_file(file)
    save_file({name.replace("unet.", "unet.another_"): t for name, t in tensors.items()}, file)
    with pytest.raises(ScenarioError, match=r"an adapter of 'unet\.another_"):
        Sampler(read_runs([unbroken[1], run]), CPU)
    file.write_bytes(b"no safetensors")
    with pytest.raises(ScenarioError, match=r"weights.safetensors: got .*, expected the adapter that"):
        Sampler(read_runs([unbroken[1], run]), CPU)
    file.unlink()
    file.symlink_to(unbroken[1] / "model" / file.name)
    with pytest.raises(ScenarioError, match="a link out of the run folder"):
        Sampler(read_runs([unbroken[1], run]), CPU)
