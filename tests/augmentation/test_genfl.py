"""GenFL with a real generator: what is painted, kept and weighed, wherever it runs."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fedray import shipped
from fedray.augmentation.image_generator import ImageGenerator
from fedray.augmentation.server import AugmentationServer
from fedray.data import dataset_info
from fedray.executors.serial import SerialExecutor
from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from fedray.randomness import SERVER
from fedray.scenario import ScenarioError
from fedray.transport.buffer import sha256
from tests.helpers import begin, broken_off, garments, job_of, rows, run, timeless, unevaluated

PAINT = {"inference_steps": 2, "per_class": 1, "at_most": 2, "batch_size": 8}
TWO_EACH = PAINT | {"templates": ["a {label}", "a dress {label}"]}
AUGMENTED = {"augmentation": PAINT, "training.rounds": 3}
SEARCHED = {"weighting": {"kind": "line_search", "images": 100, "smoothing": 0.25}}
CPU = torch.device("cpu")


def weighed(**weighting):
    return {"augmentation": PAINT | {"weighting": {"kind": "fixed"} | weighting}, "training.rounds": 3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("genfl") / "run"
    file = garments(out.parent, AUGMENTED)
    return file, out, run(file, out)


def ends(file, rounds=3):
    """The final buffer in one process."""
    executor = SerialExecutor(job_of(file)[1])
    begin(executor)
    executor.reports = []
    for t in range(1, rounds + 1):
        scenario = executor.job.scenario
        schedule = schedule_round(scenario, Radio(scenario.network), t, executor.shared)
        executor.reports += executor.run_round(schedule)
    return executor


def kappas(reports):
    return [report.metrics["kappa_2"] for report in reports if report.client == SERVER]


def test_every_round_says_how_many_pictures_there_are_and_what_they_weigh(whole):
    metrics = rows(whole[1] / "metrics.jsonl")
    assert [(r["pictures"], r["kappa_2"], r["samples"]) for r in metrics] == [
        (10, 0.5, 40),
        (20, 0.5, 40),
        (20, 0.5, 40),
    ]
    assert all(r["augmented_loss"] > 0 for r in metrics)
    files = sorted((whole[1] / "pictures").glob("*.png"))
    assert [file.name for file in files][:11:10] == ["000000-t-shirt.png", "000010-t-shirt.png"]
    assert len(files) == 20
    told = json.loads((whole[1] / "augmentation.json").read_text())
    assert told["pictures"]["images"] == 20
    assert len(told["clients"]) == 5
    assert all(after < before for before, after in zip(told["emd_before"], told["emd_after"], strict=True))
    assert Image.open(whole[1] / "samples" / "pictures.png").width > 1000


def test_the_server_paints_and_trains_on_its_own_time(whole):
    events = [
        e
        for e in rows(whole[1] / "timeline.jsonl")
        if e["node"] == "server" and e["event"] in ("generate", "train", "aggregate")
    ]
    first = {e["event"]: e for e in events if e["round"] == 1}
    assert first["generate"]["t0_s"] == 0
    assert first["generate"]["flops"] > 0 < first["train"]["flops"]
    assert first["generate"]["t1_s"] <= first["train"]["t0_s"]
    assert first["train"]["t1_s"] <= first["aggregate"]["t0_s"]
    assert "generate" not in {e["event"] for e in events if e["round"] == 3}  # there are all that may be


def test_eq_1_weighs_the_clients_mean_and_the_augmented_model(tmp_path):
    alone = {
        kappa: ends(garments(tmp_path, weighed(kappa_1=1 - kappa, kappa_2=kappa), f"{kappa}.yaml"), 1)
        for kappa in (0.0, 1.0, 0.25)
    }
    numbers = {kappa: e.layout.view(e.buffer).double() for kappa, e in alone.items()}
    torch.testing.assert_close(numbers[0.25], 0.75 * numbers[0.0] + 0.25 * numbers[1.0], rtol=0, atol=1e-7)
    plain = ends(garments(tmp_path, {}, "plain.yaml"), 1)
    assert sha256(alone[0.0].buffer) == sha256(plain.buffer)  # FL-only is FedAvg
    assert numbers[1.0].ne(numbers[0.0]).float().mean() > 0.5  # some of a network of ReLUs sleep


def test_aigc_only_asks_no_client_and_sends_nothing(tmp_path):
    result = run(garments(tmp_path, weighed(kappa_1=0.0, kappa_2=1.0)), tmp_path / "run")
    assert result["status"] == "done"
    assert (
        result["final"]["clients"]
        == result["final"]["bytes_uplink"]
        == result["final"]["bytes_downlink"]
        == 0
    )
    assert result["final"]["augmented_loss"] > 0


@pytest.fixture(scope="module")
def two(cluster, tmp_path_factory):
    """Two hosts and a server on Ray; what they hold does not depend on where it is painted."""
    from fedray.executors.ray.executor import RayExecutor

    section = TWO_EACH | SEARCHED
    changes = AUGMENTED | {"augmentation": section, "runtime": {"executor": "ray", "actors": 2}}
    with unevaluated():
        executor = RayExecutor(job_of(garments(tmp_path_factory.mktemp("two"), changes))[1])
    yield executor
    executor.close()


TRIAL = {"prompts": {"kind": "evidence", "images": 1, "round": 1}}
# by where it is painted: what the section says beside that, and in which of two rounds the server trains
PLACES = {"server": ({}, (1, 2)), "server_broadcast": ({}, ()), "client": ({}, ()), "trial": (TRIAL, (2,))}


@pytest.mark.parametrize("place", PLACES)
def test_ray_gives_the_bits_of_one_process_wherever_it_is_painted(place, cluster, two, tmp_path, monkeypatch):
    options, trains = PLACES[place]
    at = "server" if place == "trial" else place
    searched = SEARCHED if at == "server" else {}
    changes = TWO_EACH | {"at": at} | searched | options
    alone = ends(garments(tmp_path, AUGMENTED | {"augmentation": changes}), 2)
    scenario = two.job.scenario.model_copy(update={"augmentation": alone.job.scenario.augmentation})
    monkeypatch.setattr(two, "job", dataclasses.replace(two.job, scenario=scenario))
    if at == "client":  # each host that paints imports diffusers
        monkeypatch.setattr(two, "hosts", two.hosts[:1])
    begin(two)
    reports = []
    for t in (1, 2):
        reports += two.run_round(schedule_round(scenario, Radio(scenario.network), t, two.shared))
    assert kappas(reports) == kappas(alone.reports)
    assert len(kappas(reports)) == len(trains)
    assert sha256(cluster.get(two.buffer)) == sha256(alone.buffer)


def test_a_broken_off_run_goes_on_to_the_same_bits_without_painting_again(whole, tmp_path, monkeypatch):
    out = broken_off(whole[1], tmp_path / "run", 3)
    painted = []
    paint = ImageGenerator._generate
    monkeypatch.setattr(
        ImageGenerator,
        "_generate",
        lambda self, owner, chunk, labels: painted.append(chunk) or paint(self, owner, chunk, labels),
    )
    damaged = sorted((out / "pictures").glob("*.png"))[12]
    damaged.write_bytes(damaged.read_bytes()[:60])
    result = run(None, out, resume=True)
    assert result["weights_sha256"] == whole[2]["weights_sha256"]
    assert timeless(rows(out / "metrics.jsonl")) == timeless(rows(whole[1] / "metrics.jsonl"))
    assert painted == [range(10, 18)]  # the batch with the damaged file
    assert damaged.read_bytes() == (whole[1] / "pictures" / damaged.name).read_bytes()


def test_pictures_sent_to_clients_join_their_own_and_are_paid_for_once(tmp_path):
    changes = AUGMENTED | {
        "augmentation": PAINT | {"at": "server_broadcast"},
        "training.local_steps": None,
        "training.local_epochs": 1,
        "training.batch_size": 50,
    }
    run(garments(tmp_path, changes), tmp_path / "run")
    sends = [e for e in rows(tmp_path / "run" / "timeline.jsonl") if e["id"].startswith("pictures-0")]
    assert [e["bytes"] for e in sends] == [10 * 32 * 32, 10 * 32 * 32]  # grey, 32 pixels a side
    trained = [r["samples"] for r in rows(tmp_path / "run" / "metrics.jsonl")]
    assert trained == [2500 + 5 * 10, 2500 + 5 * 20, 2500 + 5 * 20]


def test_the_augmented_model_may_go_on_from_its_own_weights_through_a_resume(tmp_path):
    changes = {"augmentation": PAINT | {"start": "own"}, "training.rounds": 3}
    from_own, from_global = (
        ends(garments(tmp_path, c, f"{i}.yaml")) for i, c in enumerate((changes, AUGMENTED))
    )
    assert sha256(from_own.buffer) != sha256(from_global.buffer)
    file, out = tmp_path / "0.yaml", tmp_path / "run"
    result = run(file, out)
    assert result["weights_sha256"] == sha256(from_own.buffer)
    (out / "result.json").unlink()
    shutil.rmtree(out / "checkpoints" / "round-0003")
    assert run(None, out, resume=True)["weights_sha256"] == result["weights_sha256"]


def test_weights_may_follow_accuracy_on_images_that_are_then_not_tested_on(tmp_path):
    changes = {
        "augmentation": PAINT | {"weighting": {"kind": "held_out", "images": 100, "power": 2.0}},
        "training.rounds": 1,
    }
    file = garments(tmp_path, changes)
    executor = ends(file, 0)
    work = AugmentationServer(executor.job, CPU)
    mean = executor.buffer
    labels = np.arange(10)
    augmented, report = work.train(1, labels, mean, {})
    models = (executor.layout.view(mean), torch.from_numpy(augmented))
    scores = [work.measured(numbers)["accuracy"] ** 2 for numbers in models]
    _, _, mixed = work.mix(executor.layout, 1, mean, {}, (augmented, report))
    assert mixed.metrics["kappa_2"] == pytest.approx(scores[1] / sum(scores))
    run(file, tmp_path / "run")
    from fedray.data.clients import split_test_set as split

    held, rest = split(executor.job.scenario, 500)
    assert len(held) == 100
    assert sorted([*held, *rest]) == list(range(500))


def test_a_client_whose_images_cannot_be_read_is_left_out_of_the_audit(tmp_path, monkeypatch):
    from fedray.executors.local_training import DataFailure, LocalTraining

    executor = ends(garments(tmp_path, AUGMENTED), 0)
    shard = LocalTraining.shard

    def broken(self, client):
        if client == 2:
            raise DataFailure("preparing its data", "its disk is gone")
        return shard(self, client)

    monkeypatch.setattr(LocalTraining, "shard", broken)
    told = executor.audit(range(5), np.arange(10), tmp_path / "sheet.png")
    assert [row["client"] for row in told["clients"]] == [0, 1, 3, 4]
    whole = sum(row["samples"] for row in told["clients"])
    assert whole < 2500
    assert all(
        row["learning_error"] == pytest.approx(np.log(10), rel=0.1) and row["gradient_gap"] > 0
        for row in told["clients"]
    )
    assert told["pictures"]["images"] == 10


def test_a_failed_augmented_model_weighs_nothing(tmp_path):
    executor = ends(garments(tmp_path, AUGMENTED), 0)
    work = AugmentationServer(executor.job, CPU)
    augmented, report = work.train(1, np.arange(10), executor.buffer, {})
    failed = dataclasses.replace(report, failure="its loss is nan")
    mixed, state, told = work.mix(executor.layout, 1, executor.buffer, {}, (augmented, failed))
    assert (mixed is executor.buffer, state, told.metrics["kappa_2"]) == (True, {}, 0.0)


def test_a_picture_is_of_its_prompt_and_the_same_in_whatever_order_it_is_asked_for(tmp_path):
    scenario = job_of(
        garments(
            tmp_path,
            {
                "augmentation": PAINT
                | {"templates": ["{a} {label}", "one {label}"], "names": {"bag": "ink bag"}}
            },
        )
    )[1].scenario
    grey = dataset_info(scenario.data, tmp_path)
    one, two = (ImageGenerator(scenario.augmentation, tmp_path, grey, 0, CPU) for _ in range(2))
    labels = np.tile(np.arange(10), 2)
    first = [one.generate(SERVER, labels[:n]) for n in (10, 20)]
    again = two.generate(SERVER, labels)
    assert (first[1].pixels == again.pixels).all()
    assert (first[0].pixels == again.pixels[:10]).all()
    assert again.pixels.shape == (20, 1, 32, 32)
    assert (two.generate(3, labels[:10]).pixels != again.pixels[:10]).any()
    prompts = {one.prompt(SERVER, i, 9) for i in range(30)}
    assert prompts == {"an ankle boot", "one ankle boot"}
    assert one.prompt(SERVER, 0, 8) in ("an ink bag", "one ink bag")


# ruff: noqa: E501 (a table)
def test_variants_of_a_sweep_paint_the_same_picture_once(tmp_path, monkeypatch):
    scenario = job_of(garments(tmp_path, {"augmentation": PAINT}))[1].scenario
    for name in ("one", "two"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
    (tmp_path / "sweep" / "scenario.resolved.yaml").write_text("")
    seen = []
    paint = ImageGenerator._generate
    monkeypatch.setattr(
        ImageGenerator,
        "_generate",
        lambda self, owner, chunk, labels: seen.append(chunk) or paint(self, owner, chunk, labels),
    )
    grey, labels = dataset_info(scenario.data, tmp_path), np.arange(10)
    made = [
        ImageGenerator(
            scenario.augmentation, tmp_path, grey, seed, CPU, tmp_path / "sweep" / name / "pictures"
        ).generate(SERVER, labels)
        for name, seed in (("one", 0), ("two", 0), ("two", 1))
    ]
    assert (made[0].pixels == made[1].pixels).all()
    assert (made[0].pixels != made[2].pixels).any()
    assert len(seen) == 4  # two batches, none for the second, and again for another seed
    assert len(list((tmp_path / "sweep" / "two" / "pictures").glob("*.png"))) == 10


BAD = {
    "kappas that do not sum to 1": ({"weighting": {"kind": "fixed", "kappa_1": 0.5, "kappa_2": 0.6}}, "augmentation.weighting: got kappa_1 0.5 and kappa_2 0.6"),
    "a negative kappa": ({"weighting": {"kind": "fixed", "kappa_1": 1.5, "kappa_2": -0.5}}, "augmentation.weighting.kappa_2: got -0.5, expected"),
    "a generator that is missing": ({"generator": "tiny-sb"}, "augmentation.generator: got 'tiny-sb', which is not there"),
    "a label without a template": ({"templates": {"bag": ["a {label}"]}}, "augmentation.templates: got none for the label 't-shirt'"),
    "a label without a name": ({"names": {"bag": " "}}, "augmentation.names: got nothing for the label 'bag'"),
    "a name of no label": ({"names": {"hat": "hat"}}, "augmentation.names: got 'hat', expected a label: t-shirt"),
    "braces of something else": ({"templates": ["a {colour} {label}"]}, "augmentation.templates: got 'a {colour} {label}', expected"),
    "weights where nothing is weighed": ({"at": "client", "weighting": {"kind": "fixed", "kappa_1": 0.3, "kappa_2": 0.7}}, "augmentation.at: got client with weights"),
    "all of the test set held out": ({"weighting": {"kind": "held_out", "images": 500}}, "augmentation.weighting.images: got 500, expected less than the 500"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_painted_or_weighed_is_one_line_before_anything_trains(what, tmp_path):
    from fedray.planning.plan import plan

    changes, line = BAD[what]
    with pytest.raises(ScenarioError) as refused:
        plan(job_of(garments(tmp_path, {"augmentation": PAINT | changes}))[0])
    (problem,) = refused.value.problems
    assert line in problem


def test_a_generator_may_be_a_folder_beside_the_scenario_such_as_a_finished_runs_model(tmp_path):
    from fedray.planning.plan import plan

    (tmp_path / "mine").symlink_to(shipped.HERE / "tiny-sd", target_is_directory=True)
    loaded, _ = job_of(garments(tmp_path, {"augmentation": PAINT | {"generator": "mine"}}))
    planned = plan(loaded)
    assert planned["pictures"] == 20
    assert (
        planned["flops_per_picture"]
        == plan(job_of(garments(tmp_path, {"augmentation": PAINT}, "other.yaml"))[0])["flops_per_picture"]
        > 1e8
    )
    assert f"generator: {(shipped.HERE / 'tiny-sd').resolve()}" in loaded.resolved()


def test_pictures_of_another_size_are_resized_with_a_notice(whole, capfd, tmp_path):
    run(garments(tmp_path, AUGMENTED | {"training.rounds": 1}), tmp_path / "run")
    assert (
        "generated pictures of 32 pixels a side are resized to the classifier's 28" in capfd.readouterr().err
    )
