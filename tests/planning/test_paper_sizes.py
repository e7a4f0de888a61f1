"""Models at the size that papers have them: counted from shipped configurations, without weights."""

import json

import diffusers
import pytest
from accelerate import init_empty_weights

from fedray import shipped
from fedray.checks import check
from fedray.data import Dataset
from fedray.learners.learners import on_meta
from fedray.transport.buffer import Layout
from fedray.tuning.tunings import tuning


def counted(loaded):
    """A scenario's model on the meta device, and the layout of what travels: what `plan` counts, but for the
    time that counting operations takes."""
    scenario = loaded.scenario
    learner = on_meta(scenario, loaded.folder, Dataset.of(scenario, loaded.folder))
    tuned = tuning(scenario.tuning, scenario.seed).apply(learner)
    return learner, Layout.of(tuned.travelling, scenario.payload)


@pytest.mark.parametrize(
    ("variant", "parameters", "payload_bytes"),
    [
        ("traditional", 859_520_964, 1_719_041_928),
        ("lora", 25_509_888, 102_039_552),
        ("dreambooth", 982_581_444, 1_965_162_888),
        ("textual-inversion", 768, 1_536),
        ("controlnet", 361_279_120, 722_558_240),
    ],
)
def test_each_method_of_table_2_sends_its_own_weights_alone(variant, parameters, payload_bytes):
    _, layout = counted(check(shipped.scenarios()["huang2023-table2-sizes"]).variants[variant])
    assert (layout.trained, layout.nbytes) == (parameters, payload_bytes)


@pytest.mark.parametrize(
    ("scenario", "part", "whole", "parameters", "payload_bytes"),
    [
        ("sdxl-lora", "unet", 2_567_463_684, 11_612_160, 23_224_320),
        ("sd3-lora", "transformer", 2_028_328_000, 2_347_008, 4_694_016),
        ("flux-lora", "transformer", 11_901_408_320, 11_206_656, 22_413_312),
    ],
)
def test_adapters_of_a_base_are_counted_without_its_weights(scenario, part, whole, parameters, payload_bytes):
    learner, layout = counted(check(shipped.scenarios()[scenario]))
    assert (layout.trained, layout.nbytes) == (parameters, payload_bytes)
    base = [p for name, p in learner.parts[part].named_parameters() if ".lora_" not in name]
    assert sum(p.numel() for p in base) == whole


@pytest.mark.parametrize(
    ("base", "parameters"),
    [
        ("stable-diffusion-3.5-medium", 2_243_171_520),
        ("stable-diffusion-3.5-large", 8_056_627_520),
    ],
)
def test_a_shipped_transformer_has_the_published_models_size(base, parameters):
    folder = shipped.HERE / "networks" / base / "transformer"
    config = json.loads((folder / "config.json").read_text())
    with init_empty_weights(include_buffers=True):
        network = getattr(diffusers, config["_class_name"]).from_config(config)
    assert sum(p.numel() for p in network.parameters()) == parameters
