"""Whole parts of a model, by the names that the model gives them."""

import pytest

from fedray.checks import check
from fedray.data import DatasetInfo
from fedray.learners.contexts import LearnerContext
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from fedray.scenario.base import Refused
from fedray.scenario.tuning import Full
from fedray.tuning.tunings import tuning
from tests.helpers import UNSEEN, garments, tiny
from tests.learners.families.tiny_bases import sdxl
from tests.learners.own_learner import Segmenter, SegmenterSection


def full(*parts):
    return {"tuning": {"kind": "full", "parts": list(parts)}}


@pytest.mark.parametrize(
    ("scenario", "changes", "there"),
    [
        (garments, {}, "network"),
        (garments, {"model": {"kind": "vae"}}, "encoder, decoder"),
        (garments, {"model": {"kind": "diffusion", "channels": [32, 32]}}, "unet"),
        (tiny, UNSEEN, "unet, text_encoder"),
    ],
    ids=["classifier", "vae", "diffusion", "text_to_image"],
)
def test_a_part_that_the_model_does_not_have_is_refused_by_line_with_those_that_it_has(
    tmp_path, scenario, changes, there
):
    file = scenario(tmp_path, changes | full("text_encoder_2"))
    with pytest.raises(ScenarioError) as e:
        check(file)
    (problem,) = e.value.problems
    assert problem.startswith(f"{file}:")
    assert "text_encoder_2" in problem
    assert problem.endswith(there)


def test_a_base_with_two_text_encoders_trains_the_second_one(tmp_path):
    base = sdxl(tmp_path / "sdxl")
    changes = UNSEEN | {"model.base": str(base)} | full("text_encoder_2")
    assert plan(check(tiny(tmp_path, changes)))["parameters"]
    with pytest.raises(ScenarioError, match="got 'vae', expected some of unet, text_encoder, text_encoder_2"):
        check(tiny(tmp_path, changes | full("vae")))


def test_a_base_that_is_not_there_is_one_problem_whatever_parts_are_named(tmp_path):
    with pytest.raises(ScenarioError) as e:
        check(tiny(tmp_path, UNSEEN | {"model.base": "nowhere"} | full("unet")))
    assert len(e.value.problems) == 1


def test_a_learner_of_ones_own_names_its_parts_itself():
    dataset = DatasetInfo(channels=1, size=8, label_names=["a"])
    learner = Segmenter.load(SegmenterSection(), LearnerContext(dataset))
    chosen = tuning(Full(kind="full", parts=["network"]), 0).select(learner)
    assert all(name.startswith("network.") for name in chosen)
    with pytest.raises(Refused, match=r"tuning\.parts: got 'body', expected some of network"):
        tuning(Full(kind="full", parts=["body"]), 0).select(learner)
