"""What an observer learns of clients' samples: stand-in clients, and their updates inverted."""

import re

import pytest
import torch

from fedray.checks import check
from fedray.evaluation.evaluate import verify
from fedray.executors.observers import observer
from fedray.executors.serial import SerialExecutor
from fedray.report.page import write
from fedray.scenario import Refused, ScenarioError
from tests.helpers import garments, job_of, rows, run

LENET = {"model.network": "lenet", "model.resolution": 16}


def watching(view, **more):
    return LENET | {"evaluation": {"leakage": {"view": view, **more}}}


PAINTS = {
    "kind": "diffusion",
    "resolution": 16,
    "channels": [32, 32],
    "attention": [],
    "layers": 1,
    "timesteps": 20,
}
TRAINING = {
    "rounds": 1,
    "local_epochs": 2,
    "batch_size": 2,
    "optimizer": {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.01},
}


@pytest.mark.parametrize(
    ("topology", "view", "clients"),
    [({"kind": "parallel"}, "sum", 5), ({"kind": "relay", "chains": 2}, "server", 3)],
)
def test_the_attacker_s_simulated_update_is_that_of_the_clients(topology, view, clients, tmp_path):
    """Momentum, weight decay, clipping, batches in the clients' order, turns of a chain."""
    changes = watching(view, pictures=3) | {"topology": topology, "training": TRAINING}
    executor = SerialExecutor(job_of(garments(tmp_path, changes))[1])
    watcher = observer(executor.job, executor.device)
    assert sum(map(len, watcher.chains)) == clients
    received = executor.layout.view(executor.initial).float()
    observed = torch.stack([watcher._observed(chain, received, {}) for chain in watcher.chains]).mean(0)
    watcher.worker.model.load(received)
    batch = watcher._batch(watcher.indices)
    simulated = watcher._simulated(batch)(batch.images)
    torch.testing.assert_close(simulated, observed, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("topology", "view"), [({"kind": "parallel"}, "server"), ({"kind": "relay"}, "neighbour")]
)
def test_an_observer_gets_updates_as_their_clients_send_them(topology, view, tmp_path):
    clip = {"kind": "fedavg", "transforms": [{"kind": "clip", "norm": 0.003}]}
    executor = SerialExecutor(
        job_of(garments(tmp_path, watching(view) | {"topology": topology, "aggregation": clip}))[1]
    )
    watcher = observer(executor.job, executor.device)
    received = executor.layout.view(executor.initial).float()
    assert float(watcher._observed(watcher.chains[0], received, {}).norm()) == pytest.approx(0.003, rel=1e-3)


@pytest.fixture(scope="module")
def neighbour(tmp_path_factory):
    """A relay of two clients, each of whose updates the next one sees."""
    folder = tmp_path_factory.mktemp("neighbour")
    changes = watching("neighbour", attack_steps=300) | {
        "topology": {"kind": "relay"},
        "population": {"clients": 2},
        "training.rounds": 1,
        "training.batch_size": 1,
    }
    run(garments(folder, changes), folder / "run")
    return folder / "run"


def test_a_neighbour_rebuilds_the_picture_behind_one_update(neighbour):
    row = rows(neighbour / "metrics.jsonl")[-1]
    assert row["eval_leakage_psnr"] > row["eval_leakage_psnr_floor"] + 8
    assert row["eval_leakage_ssim"] > row["eval_leakage_ssim_floor"] + 0.3
    assert row["eval_leakage_labels"] == 1.0
    assert row["eval_leakage_images"] == 1.0


def test_a_report_shows_the_pictures_and_says_who_looked(neighbour):
    page = write([neighbour]).read_text()
    assert "What an observer learns" in page
    assert "the next device of the relay" in page
    assert "pictures that stand-in clients trained on" in page
    assert "geiping2020inverting" in page


def test_members_are_ranked_by_the_losses_of_the_model_that_a_client_sends(tmp_path):
    changes = {"model": PAINTS, "evaluation": {"leakage": {"view": "server", "samples": 32, "draws": 2}}}
    executor = SerialExecutor(job_of(garments(tmp_path, changes))[1])
    watcher = observer(executor.job, executor.device)
    sheet = tmp_path / "samples" / "attack-0000.png"
    learner = executor.evaluator._model.learner
    metrics = watcher.measure(learner, executor.initial, executor.initial_state, sheet)
    assert metrics == watcher.measure(learner, executor.initial, executor.initial_state, sheet)
    assert 0 < metrics["eval_membership_auc"] < 1
    assert metrics["eval_membership_samples"] == 16
    assert sheet.is_file()
    samples, members = watcher._members
    assert set(members) <= set(watcher._worker.client_indices[watcher._client])
    assert samples is executor.job.dataset.train


REFUSED = {
    "a view that the topology has not": (
        {"evaluation": {"leakage": {"view": "neighbour"}}},
        "evaluation.leakage.view: got neighbour, expected server or sum for a parallel",
    ),
    "the usual one, of activations": (
        {"evaluation": {"leakage": {}}},
        "evaluation.leakage.view: got activations, expected server or sum for a parallel",
    ),
    "a single update of a ring": (
        {"topology.reduce": "allreduce", "evaluation": {"leakage": {"view": "server"}}},
        "evaluation.leakage.view: got server, expected sum for a parallel",
    ),
    "an optimizer that the attacker cannot repeat": (
        {
            "training.optimizer": {"kind": "adamw", "learning_rate": 0.1},
            "evaluation": {"leakage": {"view": "server"}},
        },
        "training.optimizer.kind: got adamw beside evaluation.leakage, expected sgd",
    ),
    "normalised batches": (
        {
            "model": {"kind": "classifier", "network": "resnet18"},
            "evaluation": {"leakage": {"view": "server"}},
        },
        "model.norm: got batch beside evaluation.leakage, expected group",
    ),
    "noise within local updates": (
        {
            "privacy": {"kind": "sample", "clip_norm": 1.0, "noise_multiplier": 1.0},
            "evaluation": {"leakage": {"view": "server"}},
        },
        "privacy.kind: got sample beside evaluation.leakage, expected central, local or none",
    ),
    "what masks hide": (
        {
            "secure_aggregation": {},
            "evaluation": {"leakage": {"view": "server"}},
        },
        "evaluation.leakage.view: got server beside secure_aggregation, expected sum",
    ),
    "weights that an observer lacks": (
        {"tuning.local": ["*bias"], "evaluation": {"leakage": {"view": "server"}}},
        "tuning.local: got some beside evaluation.leakage, expected none",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what, tmp_path):
    changes, message = REFUSED[what]
    with pytest.raises(ScenarioError, match=re.escape(message)):
        check(garments(tmp_path, changes))


def test_more_pictures_than_there_are_held_out_are_refused_before_anything_trains(tmp_path):
    population = {"clients": 20}
    changes = {"population": population, "evaluation": {"leakage": {"view": "sum", "pictures": 25}}}
    _, job = job_of(garments(tmp_path, changes))
    with pytest.raises(Refused, match="got 500 samples that nobody trains on, expected at least 516"):
        verify(job.scenario, job.folder)
