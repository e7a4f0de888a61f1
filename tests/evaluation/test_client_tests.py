"""`evaluation.clients`: each client's own model, tested on its own distribution."""

import json

import numpy as np
import pyarrow.parquet
import pytest
import torch
from safetensors.numpy import load_file

import fedray
from fedray.data import holdings, holdings_for_tests
from fedray.data.client_tests import in_mix_of, split_own
from fedray.evaluation.client_tests import spread
from fedray.learners.learners import load
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from tests.helpers import garments, job_of, rows, run

FEDPER = {  # two garments a client, a head of its own
    "tuning": {"kind": "full", "local": ["network.9.*"]},
    "population": {"clients": 5, "per_round": 3},
    "data.partition": {"kind": "shards", "per_client": 2},
}
TESTED = FEDPER | {"evaluation": {"every": 1, "clients": {}}}


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """Two rounds of FedPer with tests after each; the folder of the scenario, whose run is in `run`."""
    folder = tmp_path_factory.mktemp("tested")
    run(garments(folder, TESTED), folder / "run")
    return folder


def job_in(folder):
    return job_of(folder / "garments.yaml")[1]


# --- which samples


def test_a_client_holds_out_its_share_and_never_all(tmp_path):
    indices = np.arange(100, 140)
    train, test = split_own(indices, 0.25, 0, 3)
    assert (len(train), len(test)) == (30, 10)
    assert sorted([*train, *test]) == indices.tolist()
    assert (np.diff(train) > 0).all()
    assert not np.array_equal(test, split_own(indices, 0.25, 0, 4)[1])
    assert [len(part) for part in split_own(indices[:1], 0.25, 0, 0)] == [1, 0]
    assert [len(part) for part in split_own(indices[:2], 0.9, 0, 0)] == [1, 1]
    assert [len(part) for part in split_own(indices[:0], 0.25, 0, 0)] == [0, 0]


def test_test_samples_are_in_the_client_s_own_mix_as_many_as_its_scarcest_label_allows():
    labels = np.repeat([0, 1, 2], [10, 40, 50])
    chosen = in_mix_of(np.repeat([0, 2], [30, 10]), labels, 0, 0)
    assert np.bincount(labels[chosen], minlength=3).tolist() == [10, 0, 3]  # 3 : 1 of 13
    assert len(set(chosen)) == 13
    assert len(in_mix_of(np.array([7]), labels, 0, 0)) == 0
    assert np.bincount(labels[in_mix_of(np.array([0, 7]), labels, 0, 0)]).tolist() == [10]


def test_what_is_held_out_nobody_trains_on_and_the_rest_is_planned(tested):
    job = job_in(tested)
    samples, held = holdings(job.scenario, job.folder)
    _, tests = holdings_for_tests(job.scenario, job.folder)
    whole = holdings(job_of(garments(tested, FEDPER, "whole.yaml"))[1].scenario, job.folder)[1]
    for client in range(5):
        both = np.concatenate([held[client], tests[client]])
        assert np.array_equal(np.sort(both), np.sort(whole[client]))
        assert len(tests[client]) == 125 == len(whole[client]) // 4
        assert set(samples.labels[tests[client]]) == set(samples.labels[held[client]])


# --- what is measured


def test_a_client_s_accuracy_is_that_of_the_global_body_under_its_own_head(tested):
    job = job_in(tested)
    samples, tests = holdings_for_tests(job.scenario, job.folder)
    learner = load(job.scenario, job.folder, torch.device("cpu"), torch.float32)
    network = learner.parts["network"]
    checkpoint = tested / "run" / "checkpoints" / "round-0002"
    body = {
        n.removeprefix("network."): torch.from_numpy(a)
        for n, a in load_file(checkpoint / "weights.safetensors").items()
    }
    first = {n: t.clone() for n, t in network.state_dict().items() if n.startswith("9.")}
    last = [row for row in rows(tested / "run" / "client_tests.jsonl") if row["round"] == 2]
    assert [row["client"] for row in last] == list(range(5))
    trained = {int(f.stem.split("-")[1]) for f in checkpoint.glob("client-*.safetensors")}
    for row in last:
        head = first
        if row["client"] in trained:
            flat = torch.from_numpy(load_file(checkpoint / f"client-{row['client']}.safetensors")["home"])
            head = {"9.weight": flat[:1280].view(10, 128), "9.bias": flat[1280:]}
        network.load_state_dict({**body, **head})
        indices = tests[row["client"]]
        with torch.no_grad():
            images = learner.draw(learner.encode(samples, indices), np.arange(len(indices)), None).images
            logits = network.eval()(images)
        labels = torch.from_numpy(samples.labels[indices])
        assert row["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
        assert row["loss"] == pytest.approx(
            float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5
        )
        assert row["samples"] == 125
    assert len(trained) >= 3
    metrics = rows(tested / "run" / "metrics.jsonl")[-1]
    assert metrics["eval_clients_accuracy"] == pytest.approx(np.mean([row["accuracy"] for row in last]))
    assert metrics["eval_clients_accuracy_std"] == pytest.approx(np.std([row["accuracy"] for row in last]))


def test_mean_spread_and_the_worst_tenth_of_twenty_clients():
    made = [{"client": k, "samples": 1 + 9 * (k == 19), "accuracy": k / 20, "loss": k} for k in range(20)]
    result = spread(made)
    assert result["eval_clients"] == 20
    assert result["eval_clients_accuracy"] == pytest.approx(0.475)
    assert result["eval_clients_accuracy_std"] == pytest.approx(np.sqrt((20**2 - 1) / 12) / 20)
    assert result["eval_clients_accuracy_worst"] == pytest.approx(0.025)  # of clients 0 and 1
    assert result["eval_clients_accuracy_pooled"] == pytest.approx((sum(range(19)) + 10 * 19) / 20 / 29)
    assert result["eval_clients_loss_worst"] == pytest.approx(18.5)
    assert spread([]) == {}


def test_rows_are_a_table_and_the_report_shows_the_spread(tested):
    table = fedray.open(tested / "run").client_tests
    assert table.num_rows == 10
    assert set(table.column_names) == {"round", "client", "samples", "accuracy", "loss"}
    assert pyarrow.parquet.read_table(tested / "run" / "client_tests.parquet").num_rows == 10
    page = fedray.open(tested / "run").report(tested / "page.html").read_text()
    assert "Each client&#39;s own model" in page or "Each client's own model" in page
    assert "worst tenth" in page


def test_with_no_tests_asked_for_nothing_is_tested_written_or_held_out(tmp_path):
    run(garments(tmp_path, FEDPER | {"training.rounds": 1}), tmp_path / "run")
    assert not list((tmp_path / "run").glob("client_tests*"))
    assert not [key for key in rows(tmp_path / "run" / "metrics.jsonl")[0] if "clients_" in key]


def test_some_clients_are_tested_on_the_test_set_in_their_own_mix_of_labels(tmp_path):
    some = FEDPER | {"evaluation": {"clients": {"source": "test_set", "clients": 2}}, "training.rounds": 1}
    file = garments(tmp_path, some)
    run(file, tmp_path / "run")
    job = job_of(file)[1]
    test, tests = holdings_for_tests(job.scenario, job.folder)
    samples, held = holdings(job.scenario, job.folder)
    assert sum(len(part) for part in held.values()) == 2500
    tested = rows(tmp_path / "run" / "client_tests.jsonl")
    assert [row["client"] for row in tested] == job.scenario.tested_clients
    assert len(tested) == 2
    for row in tested:
        own = np.bincount(samples.labels[held[row["client"]]], minlength=10)
        got = np.bincount(test.labels[tests[row["client"]]], minlength=10)
        assert row["samples"] == got.sum()
        assert np.abs(got - own * got.sum() / own.sum()).max() < 1
        assert ((own == 0) == (got == 0)).all()


# --- same bits


def test_after_a_resume_the_tests_are_those_of_a_whole_run(tested, tmp_path):
    run(garments(tmp_path, TESTED | {"training.rounds": 1}), tmp_path / "run")
    with (tmp_path / "run" / "client_tests.jsonl").open("a") as f:
        f.write('{"round": 2, "client": 0, "samples": 1}\n')  # it died in its second round
    fedray.open(tmp_path / "run").resume(rounds=2, progress=False)
    whole = (tested / "run" / "client_tests.jsonl").read_text()
    assert (tmp_path / "run" / "client_tests.jsonl").read_text() == whole


def test_on_two_actors_the_tests_are_those_of_one_process(tested, cluster, tmp_path):
    ray = TESTED | {"runtime": {"executor": "ray", "actors": 2}}
    run(garments(tmp_path, ray), tmp_path / "run")
    whole = (tested / "run" / "client_tests.jsonl").read_text()
    assert (tmp_path / "run" / "client_tests.jsonl").read_text() == whole


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"evaluation": {"clients": {"share": 1.0}}}, r"evaluation\.clients\.share: got 1"),
        (
            {"evaluation": {"clients": {"source": "test_set", "share": 0.5}}},
            r"evaluation\.clients\.share: got 0\.5 for source test_set, expected source own",
        ),
        (
            {"evaluation": {"clients": {"clients": 6}}},
            r"evaluation\.clients\.clients: got 6, expected at most",
        ),
        (
            {"evaluation": {"clients": {}}, "data.partition": {"kind": "iid", "samples": 9}},
            r"evaluation\.clients\.source: got own, beside a partition in which clients draw",
        ),
        (
            {
                "evaluation": {"clients": {}},
                "topology": {"kind": "split", "cut": "conv1", "may_send": ["labels"]},
            },
            r"evaluation\.clients: got one in a split",
        ),
    ],
    ids=json.dumps,
)
def test_tests_that_cannot_be_made_are_refused(changes, line, tmp_path):
    with pytest.raises(ScenarioError, match=r":\d+: " + line):
        plan(job_of(garments(tmp_path, {"tuning": {"kind": "full"}} | changes))[0])
