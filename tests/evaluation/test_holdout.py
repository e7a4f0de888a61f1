"""`data.holdout`: what is held out of clients' samples, and the global model on it."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import fedray
from fedray.checks import check
from fedray.data import held_out, holdings
from fedray.evaluation.client_tests import spread
from fedray.executors import Job
from fedray.executors.client_tests import GlobalModel
from fedray.executors.client_worker import ClientWorker
from fedray.executors.split.client import SplitClients
from fedray.learners.learners import load
from fedray.scenario import ScenarioError
from tests.helpers import ARTISTS, garments, job_of, rows, run, tiny

DATA = {"kind": "fashion_mnist_mini", "partition": {"kind": "dirichlet", "alpha": 1.0}, "holdout": 0.1}
HELD_OUT = {"data": DATA, "evaluation": {"every": 1}}
INK = {"kind": "image_folder", "path": "shipped:ink", "partition": {"kind": "folder"}, "holdout": 0.25}
TEXT = {"kind": "text", "path": "texts", "length": 16, "partition": {"kind": "folder"}}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Two rounds with a tenth held out; the folder of the scenario, whose run is in `run`."""
    folder = tmp_path_factory.mktemp("holdout")
    run(garments(folder, HELD_OUT), folder / "run")
    return folder


def lines(folder):
    return (folder / "run" / "client_tests.jsonl").read_text()


# --- which samples


def test_a_tenth_of_each_clients_samples_is_kept_from_training_and_is_measured_at_that_client(measured):
    job = job_of(measured / "garments.yaml")[1]
    whole = DATA | {"holdout": None}
    everything = job_of(garments(measured, {"data": whole}, "whole.yaml"))[1].scenario
    trained = holdings(job.scenario, job.folder)[1]
    tests = held_out(job.scenario, job.folder)[1]
    dealt = holdings(everything, job.folder)[1]
    last = {row["client"]: row for row in rows(measured / "run" / "client_tests.jsonl") if row["round"] == 2}
    for client in range(5):
        assert len(tests[client]) == round(0.1 * len(dealt[client])) == last[client]["holdout_samples"]
        both = np.concatenate([trained[client], tests[client]])
        assert np.array_equal(np.sort(both), np.sort(dealt[client]))


def test_tests_of_own_models_are_on_the_same_held_out_samples_and_hold_nothing_more_out(tmp_path):
    changes = {
        "data": DATA | {"holdout": 0.25},
        "tuning": {"kind": "full", "local": ["network.9.*"]},  # with a head at home, the models are one
        "evaluation": {"clients": {}},
        "training.rounds": 1,
    }
    file = garments(tmp_path, changes)
    run(file, tmp_path / "run")
    for row in rows(tmp_path / "run" / "client_tests.jsonl"):
        assert row["samples"] == row["holdout_samples"]
        assert row["loss"] == row["holdout_loss"]
    own = garments(tmp_path, changes | {"data": DATA | {"holdout": None}}, "own.yaml")
    job, other = (job_of(f)[1] for f in (file, own))
    assert all(map(np.array_equal, *(holdings(j.scenario, j.folder)[1].values() for j in (job, other))))


def test_one_client_with_everybodys_samples_holds_out_what_they_do(tmp_path):
    inner = DATA["partition"]
    pooled = {"data": DATA | {"partition": {"kind": "pooled", "of": inner, "clients": 5}}}
    one = pooled | {"topology": {"kind": "central"}, "population": {"clients": 1}}
    jobs = [job_of(garments(tmp_path, changes, name))[1] for changes, name in ((HELD_OUT, "a"), (one, "b"))]
    everybodys, pooled = (
        np.sort(np.concatenate(list(held_out(job.scenario, job.folder)[1].values()))) for job in jobs
    )
    assert np.array_equal(everybodys, pooled)
    assert len(holdings(jobs[1].scenario, jobs[1].folder)[1][0]) + len(pooled) == 2500


# --- what is measured


def test_a_clients_loss_is_the_global_models_on_its_own_held_out_samples(measured):
    job = job_of(measured / "garments.yaml")[1]
    samples, tests = held_out(job.scenario, job.folder)
    learner = load(job.scenario, job.folder, torch.device("cpu"), torch.float32)
    weights = load_file(measured / "run" / "checkpoints" / "round-0002" / "weights.safetensors")
    named = {n.removeprefix("network."): torch.from_numpy(a) for n, a in weights.items()}
    learner.parts["network"].load_state_dict(named)
    for row in rows(measured / "run" / "client_tests.jsonl")[5:]:
        indices = tests[row["client"]]
        with torch.no_grad():
            images = learner.draw(learner.encode(samples, indices), np.arange(len(indices)), None).images
            logits = learner.parts["network"].eval()(images)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(samples.labels[indices]))
        assert row["holdout_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_metrics_have_the_mean_over_samples_that_over_clients_and_the_spread(measured):
    made = [
        {"client": k, "holdout_samples": 1 + 9 * (k == 19), "holdout_loss": k, "holdout_loss_noise_1": 2 * k}
        for k in range(20)
    ]
    result = spread(made)
    assert result["eval_holdout_loss"] == pytest.approx((sum(range(19)) + 10 * 19) / 29)
    assert result["eval_holdout_loss_mean"] == pytest.approx(9.5)
    assert result["eval_holdout_loss_std"] == pytest.approx(np.sqrt((20**2 - 1) / 12))
    assert result["eval_holdout_loss_worst"] == pytest.approx(18.5)
    assert result["eval_holdout_loss_noise_1"] == pytest.approx(2 * result["eval_holdout_loss"])
    assert "eval_holdout_loss_noise_1_std" not in result
    assert (result["eval_holdout_clients"], result["eval_holdout_samples"]) == (20, 29)
    last = rows(measured / "run" / "metrics.jsonl")[-1]
    of_clients = rows(measured / "run" / "client_tests.jsonl")[5:]
    assert {k: v for k, v in last.items() if "holdout" in k} == spread(of_clients)
    base = fedray.open(measured / "run").result["baseline"]
    assert base["eval_holdout_loss"] > last["eval_holdout_loss"]
    page = fedray.open(measured / "run").report(measured / "page.html").read_text()
    assert "The global model at each client" in page


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"kind": "vae", "latent": 4, "channels": [4, 8], "resolution": 8}},
        {"model": {"kind": "gan", "width": 8, "latent": 6, "resolution": 8}},
        {
            "data": TEXT | {"holdout": 0.1},
            "population": {"clients": 2},
            "model": {
                "kind": "transformer",
                "objective": "causal_language",
                "width": 16,
                "layers": 1,
                "heads": 1,
            },
        },
        {"topology": {"kind": "relay"}},
    ],
    ids=["vae", "gan", "transformer", "relay"],
)
def test_other_models_and_topologies_are_measured_alike(changes, tmp_path):
    few = {"partition": {"kind": "dirichlet", "alpha": 10.0}, "kind": "fashion_mnist_mini", "holdout": 0.02}
    (tmp_path / "texts").mkdir()
    for name, word in (("one", "to be or not "), ("two", "a rose by any other name ")):
        (tmp_path / "texts" / f"{name}.txt").write_text(60 * word)
    one = {"data": few, "evaluation": {"images_per_prompt": 1}, "training.rounds": 1}
    file = garments(tmp_path, one | changes)
    final = run(file, tmp_path / "run")["final"]
    metric = "negative_elbo" if check(file).scenario.model.kind == "vae" else "loss"
    assert np.isfinite(final[f"eval_holdout_{metric}"])
    assert final["eval_holdout_clients"] == check(file).scenario.population.clients


# --- the same bits


def test_after_a_resume_and_on_two_actors_the_numbers_are_those_of_one_whole_run(measured, cluster, tmp_path):
    ray = HELD_OUT | {"training.rounds": 1, "runtime": {"executor": "ray", "actors": 2}}
    run(garments(tmp_path, ray), tmp_path / "run")
    fedray.open(tmp_path / "run").resume(rounds=2, progress=False)
    assert lines(tmp_path) == lines(measured)
    base = [json.loads((f / "run" / "baseline.json").read_text()) for f in (tmp_path, measured)]
    assert base[0] == base[1]


def test_a_split_measures_the_whole_model_at_the_client_as_a_parallel_round_does(tmp_path):
    """Clients at sites too: a site's host opens nothing but its own."""
    folders = sorted(p.name for p in (fedray.shipped.HERE / "ink").iterdir() if p.is_dir())
    data = INK | {"partition": {"kind": "folder"}}
    sites = {"north": {"folders": folders[:3]}, "south": {"folders": folders[3:]}}
    changes = {"data": data, "model.resolution": 16, "training.batch_size": 2, "evaluation": {}}
    loaded = check(tiny(tmp_path, changes | {"topology": {"kind": "parallel"}}))
    worker = ClientWorker(Job(loaded.scenario, loaded.folder), torch.device("cpu"))
    buffer, _, state = worker.initial()
    model = GlobalModel(0, buffer, state)
    first = worker.test_clients(model, [0, 4], {})
    split = {"kind": "split", "cut": "down_0", "may_send": ["timesteps", "text", "noise", "latents"]}
    cut = check(tiny(tmp_path, changes | {"topology": split}, "split.yaml"))
    at_the_cut = SplitClients(Job(cut.scenario, cut.folder), torch.device("cpu"))
    assert at_the_cut.test_clients(model, [0, 4], {}) == first
    there = {"data": data | {"sites": sites}, "runtime": {"executor": "ray"}}
    scenario = check(
        tiny(tmp_path, changes | {"topology": {"kind": "parallel"}} | there, "sites.yaml")
    ).scenario
    host = ClientWorker(Job(scenario, loaded.folder), torch.device("cpu"), "south")
    (at_site,) = host.test_clients(model, [4], {})
    assert at_site == first[1]


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"data": DATA | {"holdout": 1.0}}, r"data\.holdout: got 1"),
        (
            ARTISTS | {"data": ARTISTS["data"] | {"holdout": 0.99}},
            r"data\.holdout: got 0\.99 of client 0's \d+ samples, which leaves it none, expected a share",
        ),
        (
            {"data": DATA | {"partition": {"kind": "iid", "samples": 9}}},
            r"data\.holdout: got 0\.1 beside a partition in which clients draw",
        ),
        (
            {"data": DATA, "evaluation": {"clients": {"share": 0.5}}},
            r"evaluation\.clients\.share: got 0\.5 beside data\.holdout, 0\.1, expected none",
        ),
        (
            {"data": {"kind": "service", "environment": {"kind": "edge"}, "partition": {"kind": "iid"}}
             | {"holdout": 0.1}, "model": {"kind": "agent", "algorithm": {"kind": "dqn"}}},
            r"data\.holdout: got 0\.1 of service, expected none",
        ),
    ],
    ids=["all of it", "a client is left without", "drawn with replacement", "two shares", "environments"],
)  # fmt: skip
def test_what_cannot_be_held_out_is_refused(changes, line, tmp_path):
    with pytest.raises(ScenarioError, match=r":\d+: " + line):
        check(garments(tmp_path, changes))
