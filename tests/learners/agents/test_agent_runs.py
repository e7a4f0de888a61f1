"""Runs of agents: what travels, what it costs in simulated time, how it goes on, and what is refused."""

import io
import json
import pickle
import re
import shutil
import textwrap
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from fedray.callbacks import Callback
from fedray.executors.client_worker import ClientWorker
from fedray.executors.ray.actors import ClientHost, Part
from fedray.failures import RunFailed
from fedray.learners.agent import Agent
from fedray.learners.agents.algorithm import Algorithm
from fedray.learners.contexts import LearnerContext
from fedray.planning.plan import plan
from fedray.report import page, recorded
from fedray.report.recost import simulate_on_network
from fedray.scenario import ScenarioError
from fedray.scenario.model import Model
from tests.helpers import TWO_ACTORS, garments, job_of, rows, run, unevaluated

REQUESTS = 48  # of each of three clients
CHANGES = {
    "seed": 5,  # whose initial weights go left
    "population": {"clients": 3},
    "data": {"kind": "worlds:ChainSource", "requests": 3 * REQUESTS, "partition": {"kind": "iid"}},
    "model": {"kind": "agent", "algorithm": {"kind": "dqn", "hidden": [16]}, "copies": 5},
    "training": {
        "rounds": 4,
        "local_steps": 5,
        "batch_size": 16,
        "optimizer": {"kind": "adamw", "learning_rate": 1.0e-2},
    },
    "evaluation": {"every": 4},
}


def scenario(folder, changes=None, name="agents.yaml"):
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).parent / "worlds.py", folder / "worlds.py")
    return garments(folder, CHANGES | (changes or {}), name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agents")
    run(scenario(folder), folder / "run")
    return folder


class Broken(Callback):
    """Stops a run behind a round."""

    def __init__(self, after):
        self.after = after

    def on_round(self, report):
        if report.round_number == self.after:
            raise KeyboardInterrupt


class Arrays(pickle.Pickler):
    """Notes the arrays of whatever is pickled, and how much else there is."""

    def __init__(self):
        self.written = io.BytesIO()
        super().__init__(self.written)
        self.sizes = []

    def reducer_override(self, value):
        if isinstance(value, np.ndarray | torch.Tensor):
            self.sizes.append(np.asarray(value).nbytes)
            return float, ()
        return NotImplemented


def sent(*values):
    """Bytes of each array among these values, and of all the rest."""
    pickler = Arrays()
    pickler.dump(values)
    return pickler.sizes, len(pickler.written.getvalue())


def test_federated_agents_learn_what_to_do_at_held_out_requests(finished):
    last = rows(finished / "run" / "metrics.jsonl")[-1]
    baseline = json.loads((finished / "run" / "baseline.json").read_text())
    assert baseline["eval_reward"] < 0.1
    assert last["eval_reward"] == pytest.approx(1 / 3, abs=0.05)  # an episode of three steps earns 1
    assert last["eval_right"] == 1
    assert last["eval_requests"] == 3 * REQUESTS / 4 * 3


@pytest.mark.parametrize("algorithm", ["dqn", "d2sac"])
def test_nothing_but_weights_leaves_a_client(tmp_path, algorithm):
    """What an actor of clients answers is all that ever leaves it."""
    _, job = job_of(scenario(tmp_path, {"model.algorithm": {"kind": algorithm, "hidden": [16]}}))
    host = ClientHost(job)
    host.work = ClientWorker(job, torch.device("cpu"))
    buffer, layout, _ = host.work.initial()
    numbers = {layout.numel * width for width in (4, 8)}  # fp32 on the air, fp64 in a sum
    for answer in (
        host.train_all(buffer, {}, 3 * REQUESTS, 1, [0, 1, 2], Part(True, True), None),
        host.train(1, 0, buffer, None),
    ):
        arrays, rest = sent(answer)
        assert arrays
        assert set(arrays) <= numbers
        assert rest < 2000  # reports of a few numbers each: less than the experience of a client


def test_a_broken_run_goes_on_to_the_same_weights(finished, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run(scenario(tmp_path), tmp_path / "run", callback=Broken(2))
    monkeypatch.setenv("FEDRAY_CODE", str(tmp_path))
    assert run(None, tmp_path / "run", resume=True)["weights_sha256"] == sha(finished)


def test_two_actors_give_the_weights_of_one_process(finished, tmp_path):
    with unevaluated():
        together = run(scenario(tmp_path, {"runtime": TWO_ACTORS}), tmp_path / "run")
    assert together["weights_sha256"] == sha(finished)


def sha(folder):
    return json.loads((folder / "run" / "result.json").read_text())["weights_sha256"]


def test_playing_takes_simulated_time_in_plan_run_and_on_another_network(finished):
    events = [e for e in rows(finished / "run" / "timeline.jsonl") if e["event"] == "train"]
    assert all(e["waits_s"] == REQUESTS for e in events)  # a second a request
    assert all(e["t1_s"] - e["t0_s"] >= REQUESTS for e in events)
    last = rows(finished / "run" / "metrics.jsonl")[-1]
    loaded, _ = job_of(finished / "agents.yaml")
    assert plan(loaded)["total"]["sim_time_s"] == last["sim_time_s"]
    (before,) = recorded.read([finished / "run"])
    there = simulate_on_network(before, finished / "agents.yaml")
    assert there.rows[-1]["sim_time_s"] == pytest.approx(last["sim_time_s"])


def test_in_a_relay_clients_play_one_after_another(finished, tmp_path):
    run(scenario(tmp_path, {"topology": {"kind": "relay"}}), tmp_path / "run")
    parallel, relay = (
        rows(folder / "run" / "metrics.jsonl")[0]["sim_time_s"] for folder in (finished, tmp_path)
    )
    assert REQUESTS < parallel < 2 * REQUESTS
    assert 3 * REQUESTS < relay < 4 * REQUESTS


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"kind": "classifier"}}, "model.kind: got classifier on environments, expected agent"),
        ({"data": {"kind": "fashion_mnist_mini", "partition": {"kind": "iid"}}}, "got agent on samples"),
        ({"topology": {"kind": "split", "cut": "network"}}, "got split for an agent"),
        ({"topology": {"kind": "relay", "relay_defence": {"kind": "loss"}}}, "topology.relay_defence: got"),
        (
            {"privacy": {"kind": "sample", "clip_norm": 1.0, "noise_multiplier": 1.0}},
            "got sample for a agent, whose samples follow from one another",
        ),
        ({"aggregation": {"kind": "fltrust", "root_samples": 4}}, "got fltrust, for which the server trains"),
        ({"model.algorithm": "dqm"}, "did you mean"),
        ({"model.algorithm": {"kind": "dqn", "epsilon_end": 0.9}}, "expected at most epsilon_start, 0.6"),
        ({"evaluation": {"prompts": ["a bag"]}}, "evaluation.prompts: got some for a agent"),
    ],
)
def test_what_agents_cannot_do_is_refused(tmp_path, changes, said):
    with pytest.raises(ScenarioError, match=re.escape(said)):
        plan(job_of(scenario(tmp_path, changes))[0])


def test_an_environment_that_changes_its_observations_is_its_clients_failure(tmp_path):
    file = scenario(tmp_path, {"data.shrinks": True})
    said = "its environment gives observations [5, 3], expected [5, 4]"
    with pytest.raises(RunFailed, match=re.escape(said)):
        run(file, tmp_path / "run")


def test_an_algorithms_name_alone_stands_for_its_defaults(tmp_path):
    loaded, _ = job_of(scenario(tmp_path, {"model.algorithm": "ppo"}))
    assert loaded.scenario.model.algorithm.clip == 0.2
    jsonschema.validate({"kind": "agent", "algorithm": "ppo"}, TypeAdapter(Model).json_schema())


def test_a_saved_agent_is_opened_again_and_generates_nothing(finished, fedray):
    section = job_of(finished / "agents.yaml")[0].scenario.model
    saved = finished / "run" / "model"
    opened = Agent.from_export(section, LearnerContext(Agent.exported_dataset(section, saved)), saved)
    assert opened.algorithm.actions == 2
    code, _, stderr = fedray("generate", finished / "run")
    assert code
    assert "the run of a model that generates images or texts" in stderr


def test_the_algorithm_of_the_documentation_learns(tmp_path):
    example = Algorithm.__doc__.split("for instance:\n")[1].split("Args:")[0]
    file = scenario(tmp_path, {"model.algorithm": "my_algorithm:Reinforce"})
    (tmp_path / "my_algorithm.py").write_text(textwrap.dedent(example))
    run(file, tmp_path / "run")
    assert rows(tmp_path / "run" / "metrics.jsonl")[-1]["eval_right"] > 0.9


def test_rules_are_measured_beside_an_agent_at_the_same_requests_and_shown_as_lines(tmp_path):
    served = {
        "data": {
            "kind": "service",
            "environment": {"kind": "edge"},
            "requests": 3 * REQUESTS,
            "held_out": 64,
            "partition": {"kind": "iid"},
        },
        "model.rules": ["random", {"kind": "prophet"}],
        "training.rounds": 1,
    }
    run(scenario(tmp_path, served), tmp_path / "run")
    last = rows(tmp_path / "run" / "metrics.jsonl")[-1]
    baseline = json.loads((tmp_path / "run" / "baseline.json").read_text())
    assert last["eval_reward_random"] == baseline["eval_reward_random"] < 0 < last["eval_reward_prophet"]
    assert last["eval_hit_prophet"] > last["eval_hit_random"]
    (recorded_run,) = recorded.read([tmp_path / "run"])
    shown = page.render([recorded_run])
    assert ">prophet</" in shown
    assert "reward random" not in shown  # which has no chart of its own
    refused = scenario(tmp_path, served | {"model.rules": ["random", "random"]}, "twice.yaml")
    with pytest.raises(ScenarioError, match=re.escape("model.rules: got random, random, expected each rule")):
        job_of(refused)
