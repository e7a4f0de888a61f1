"""What `check` knows of cuts without torch is what the networks say."""

import pytest

from fedray.learners.learners import on_meta
from fedray.learners.stage_names import stage_names
from tests.helpers import garments, job_of, tiny

UNET = {"kind": "diffusion", "resolution": 16, "channels": [32, 64, 64], "layers": 1, "attention": [1]}
TRANSFORMER = {"kind": "transformer", "width": 32, "layers": 3, "heads": 2}
MODELS = [
    {"kind": "classifier", "network": "cnn"},
    {"kind": "classifier", "network": "lenet"},
    {"kind": "classifier", "network": "resnet18"},
    UNET,
    UNET | {"server_from": 100},
    TRANSFORMER | {"objective": "classification"},
    TRANSFORMER | {"objective": "masked_image"},
]


@pytest.mark.parametrize(
    "model",
    MODELS,
    ids=lambda m: "-".join(str(m[k]) for k in ("kind", "network", "objective", "server_from") if k in m),
)
def test_the_names_are_those_of_the_network(model, tmp_path):
    scenario = job_of(garments(tmp_path, {"model": model}))[1].scenario
    assert stage_names(scenario.model, tmp_path) == [
        stage.name for stage in on_meta(scenario, tmp_path).stages
    ]


def test_those_of_a_pipeline_are_read_from_its_configuration(tmp_path):
    scenario = job_of(tiny(tmp_path))[1].scenario
    assert stage_names(scenario.model, tmp_path) == [
        stage.name for stage in on_meta(scenario, tmp_path).stages
    ]
    assert stage_names(scenario.model.model_copy(update={"base": "somebody/something"}), tmp_path) is None


@pytest.mark.parametrize(
    ("cut", "tail", "message"),
    [
        (
            "down_7",
            "out",
            (
                "topology.cut: got 'down_7', expected auto, or one of in, down_0, down_1, down_2, mid, up_0,"
                " up_1, up_2, out"
            ),
        ),
        ("up_2", "in", "topology.tail: got 'in', expected auto, or one of loss"),
        (
            "out",
            "auto",
            "topology.tail: got 'auto', expected a cut before out, which leaves the server nothing",
        ),
    ],
)
def test_check_refuses_a_cut_that_is_not_there_on_its_line(cut, tail, message, tmp_path, fedray):
    file = garments(tmp_path, {"model": UNET, "topology": {"kind": "split", "cut": cut, "tail": tail}})
    code, _, err = fedray("check", file)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(f"{file}:")
    assert line.endswith(message)
