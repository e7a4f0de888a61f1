"""`data` of kind service: what is refused, what a source offers, and environments and rules of one's own."""

import pickle
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

import fedray
from fedray.data.dataset import Dataset
from fedray.scenario.data import Data
from fedray.scenario.serving_rule import AnyServingRule
from fedray.serving.environment import Environment, Place
from fedray.serving.rule import ServingRule

DATA = TypeAdapter(Data)
RULE = TypeAdapter(AnyServingRule)
DEVICE = {"kind": "profile", "name": "rtx_4090"}


def data(environment, **keys):
    return DATA.validate_python(
        {"kind": "service", "environment": environment, "partition": {"kind": "iid"}, **keys}
    )


def edge(**keys):
    return {"kind": "edge", **keys}


def listed(**keys):
    return {"kind": "listed", "of": [{"device": DEVICE, "models": [0], **keys}]}


def test_a_source_of_requests_knows_its_environment_and_how_long_playing_takes():
    section = data(edge(rate_per_s=[2.0, 2.0]), requests=30, held_out=7)
    dataset = Dataset(section, Path(), seed=3)
    assert dataset.info.extra == {"observation_size": 32, "actions": 32}
    assert (len(dataset.train), len(dataset.test)) == (30, 7)
    assert dataset.train.playing_s(0, 10) == pytest.approx(5)
    assert Dataset(data({"kind": "gymnasium", "id": "CartPole-v1"}), Path()).train.playing_s(0, 10) == 0
    environment = pickle.loads(pickle.dumps(dataset)).train.environment(4, np.random.default_rng(0), 2)
    assert environment.place == Place(3, 4)
    assert environment.copies == 2


def test_devices_say_how_fast_providers_are_and_what_they_draw():
    environment = Dataset(data(edge(providers=listed())), Path()).train.environment(
        0, np.random.default_rng(0), 1
    )
    assert environment.fleet.steps_per_s.item() == pytest.approx(0.4 * 82.6e12 / 0.8e12)
    assert environment.fleet.joules_per_step.item() == pytest.approx(450 * 0.8e12 / (0.4 * 82.6e12))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"deadline_s": [-1.0, 2.0]}, "greater than or equal to 0"),
        ({"deadline_s": [5.0, 2.0]}, "the lower number first"),
        ({"providers": listed(price=-0.1)}, "greater than or equal to 0"),
        ({"providers": {"kind": "drawn", "price": [-0.1, 0.1]}}, "greater than or equal to 0"),
        ({"providers": {"kind": "drawn", "count": 0}}, "greater than or equal to 1"),
        ({"providers": {"kind": "listed", "of": []}}, "at least 1 item"),
    ],
)
def test_negative_prices_and_deadlines_below_zero_are_refused(keys, said):
    with pytest.raises(ValidationError, match=said):
        data(edge(**keys))


@pytest.mark.parametrize(
    ("keys", "key", "got"),
    [
        ({"providers": listed(models=[0, 6])}, ".providers.of.0.models", "6, which nobody asks for"),
        ({"steps": [10, 5]}, ".steps", "[10, 5]"),
    ],
)
def test_what_an_edge_cannot_serve_is_refused(keys, key, got):
    (refused,) = data(edge(**keys)).environment.conflicts(None)
    assert (refused.key, refused.got) == (key, got)


def test_a_rule_that_looks_at_providers_is_refused_where_there_are_none():
    walking = data({"kind": "gymnasium", "id": "CartPole-v1"})
    (refused,) = RULE.validate_python("prophet").conflicts(SimpleNamespace(data=walking))
    assert (refused.key, refused.got) == (".kind", "prophet in gymnasium")
    assert list(RULE.validate_python("random").conflicts(SimpleNamespace(data=walking))) == []
    served = SimpleNamespace(data=data({"kind": "agod"}))
    assert list(RULE.validate_python("prophet").conflicts(served)) == []


def example(base):
    """The class in the example of a class's docstring."""
    indented = base.__doc__.split(":\n\n", 1)[1]
    for end in ("    Attributes:", "    Args:"):
        indented = indented.split(end)[0]
    made = {"fedray": fedray, "np": np}
    exec(textwrap.dedent(indented), made)
    return next(value for name, value in made.items() if name in ("Coin", "First"))


def test_the_environment_of_the_docstring_is_played():
    coin = example(Environment)
    environment = coin(coin.Section(kind="mine:Coin"), Place(0, 1), 4)
    environment.reset(np.random.default_rng(0))
    rewards = [environment.step(np.full(4, side)).rewards.tolist() for side in (0, 1)]
    assert sorted(rewards) == [[0] * 4, [1] * 4]
    assert {int(coin(None, Place(0, client), 1).side) for client in range(8)} == {0, 1}


def test_the_rule_of_the_docstring_acts():
    rule = example(ServingRule)(None, None, np.random.default_rng(0))
    assert rule.act(np.zeros((3, 1))).tolist() == [0, 0, 0]


def test_a_kind_of_ones_own_is_found_beside_the_scenario(tmp_path):
    (tmp_path / "coins.py").write_text(
        "import numpy as np\nimport fedray\n\n"
        + textwrap.dedent(Environment.__doc__.split(":\n\n", 1)[1].split("    Attributes:")[0])
    )
    text = {"kind": "service", "environment": {"kind": "coins:Coin"}, "partition": {"kind": "iid"}}
    section = DATA.validate_python(text, context={"folders": [tmp_path]})
    assert Dataset(section, tmp_path).info.extra == {"observation_size": 1, "actions": 2}
