"""Stages by name, and what a cut between them tells."""

import pytest
import torch

from fedray.learners.cut import Cut, cut, tensors
from fedray.learners.stages import Stage, needed, run
from fedray.scenario import Refused
from fedray.scenario.topology import Split

STAGES = (
    Stage("words", ("text",), ("text",), lambda text: text + 0),
    Stage("first", ("text", "images"), ("x", "skip"), lambda text, images: (text * images, images - 1)),
    Stage("second", ("x", "text"), ("x",), lambda x, text: x + text),
    Stage("third", ("x", "skip"), ("x",), lambda x, skip: x * skip),
    Stage("loss", ("x", "labels"), ("loss",), lambda x, labels: (x - labels).square().mean()),
)


def of(first, last=None):
    return Cut(STAGES[:first], STAGES[first:last], STAGES[last:] if last else ())


def test_a_whole_step_is_its_stages_in_a_row():
    values = {"text": torch.tensor([2.0]), "images": torch.tensor([3.0]), "labels": torch.tensor([1.0])}
    assert float(run(STAGES, values)["loss"]) == (8 * 2 - 1) ** 2
    assert needed(STAGES) == ("text", "images", "labels")


def test_what_crosses_is_what_one_side_needs_of_the_other():
    ushape = of(2, 3)
    assert (ushape.smashed, ushape.features, ushape.home) == (("x", "text"), ("x",), ("skip", "labels"))
    assert ushape.sent_as_they_are == ("text",)
    assert ushape.secret == "images"
    plain = of(2)
    assert (plain.smashed, plain.features) == (("x", "text", "skip", "labels"), ())
    assert plain.sent_as_they_are == ("text", "labels")
    assert plain.secret == "images"


def test_a_tensor_with_two_names_crosses_once():
    x = torch.zeros(2)
    assert [names for names, _ in tensors(("x", "skip", "y"), {"x": x, "skip": x, "y": torch.zeros(2)})] == [
        ("x", "skip"),
        ("y",),
    ]


def test_inputs_leave_their_client_only_where_that_is_allowed():
    with pytest.raises(
        Refused,
        match=r"sends the server each client's text and labels, expected a tail.*may_send: \[text, labels\]",
    ):
        cut(STAGES, Split(kind="split", cut="first"))
    assert cut(STAGES, Split(kind="split", cut="first", may_send=["text", "labels"])) == of(2)
