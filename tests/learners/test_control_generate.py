"""Pictures that follow a condition picture: one of a column of metadata.jsonl, and one that is given."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import fedray as package
from fedray.checks import check
from fedray.data import Dataset
from fedray.learners.contexts import LearnerContext, Sampling
from fedray.learners.edges import edges
from fedray.learners.learners import NO_DATA, learner_class
from fedray.scenario import ScenarioError
from fedray.scenario.control import Column, Control
from fedray.scenario.text_to_image import TextToImage as Section
from tests.data.test_conditions import CONTROL, clients
from tests.helpers import PROMPT, run, tiny
from tests.learners.test_control import learner, shaken

COLUMN = CONTROL["model.control"]["condition"]["column"]


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    """A circle, wider than high."""
    image = Image.new("RGB", (96, 64))
    ImageDraw.Draw(image).ellipse((24, 8, 72, 56), fill="white")
    file = tmp_path_factory.mktemp("drawing") / "circle.png"
    image.save(file)
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose condition is a column, at a rate that shows."""
    folder = tmp_path_factory.mktemp("column")
    changes = clients(folder) | {"training.optimizer.learning_rate": 1e-2, "training.rounds": 1}
    run(tiny(folder, changes), folder / "run")
    return package.open(folder / "run")


def test_a_sample_is_conditioned_on_the_picture_that_its_line_names(tmp_path):
    loaded = check(tiny(tmp_path, clients(tmp_path)))
    samples = Dataset.of(loaded.scenario, loaded.folder).train
    model = learner(control=Control(condition=Column(column=COLUMN)))
    assert torch.equal(model.encode(samples, np.arange(2)).condition, torch.ones(2, 3, 32, 32))


def test_a_given_picture_is_followed_as_it_is_or_by_its_edges_where_those_are_the_condition(drawing):
    with Image.open(drawing) as image:
        image.load()
    given = {}
    for name, condition in (("edges", "edges"), ("column", Column(column=COLUMN))):
        model = learner(control=Control(condition=condition))
        given[name] = model._sampling_conditions(0, 2, Sampling(condition=image))["image"]
    cut = torch.from_numpy(np.array(image)[:, 16:80]).permute(2, 0, 1).float() / 255  # its middle
    halved = torch.nn.functional.interpolate(cut[None], 32, mode="area")
    assert (given["column"] - halved).abs().mean() < 0.03
    assert torch.equal(given["edges"], edges(given["column"], 0.2))


def test_generate_follows_the_condition_that_is_given(trained, drawing):
    one, again = (trained.generate(PROMPT, steps=1, condition=drawing)[0] for _ in range(2))
    blank = drawing.with_name("blank.png")
    Image.new("RGB", (32, 32)).save(blank)
    (other,) = trained.generate(PROMPT, steps=1, condition=blank)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_run_without_examples_needs_a_condition(trained):
    with pytest.raises(ScenarioError, match="got no condition for a run with a ControlNet"):
        trained.generate(PROMPT)


@pytest.mark.parametrize("content", [None, b"no picture"], ids=["missing", "broken"])
def test_a_condition_that_is_no_picture_is_refused(fedray, trained, tmp_path, content):
    file = tmp_path / "bad.png"
    if content is not None:
        file.write_bytes(content)
    code, _, err = fedray("generate", trained.path, "--prompt", PROMPT, "--condition", file)
    assert code == 2
    assert f"--condition: got {file} cannot be read as an image" in err


def test_examples_of_a_column_are_followed_and_need_it(tmp_path):
    clients(tmp_path)
    control = Control(condition=Column(column=COLUMN), examples="p")
    section = Section(kind="text_to_image", base="tiny-sd", control=control)
    model = learner_class(section).load(section, LearnerContext(NO_DATA, tmp_path))
    assert torch.equal(model._examples.conditions, torch.ones(2, 3, 32, 32))
    assert not model._examples.edges.any()  # of grey pictures
    shaken(model.controlnet)
    conditions = (None, Image.new("RGB", (32, 32)))
    images = [model.sample([PROMPT], [0], Sampling(steps=1, condition=c)) for c in conditions]
    assert not torch.equal(*images)
    changes = {"model.control": {"condition": {"column": "depth"}, "examples": "p"}}
    with pytest.raises(ScenarioError, match=r"model\.control\.examples: got .*metadata\.jsonl:1: .*depth"):
        check(tiny(tmp_path, CONTROL | changes))
