"""Split rounds carried out: the gradients of the unsplit model, on any number of actors, and after
failures."""

import json
import os
import re
import shutil
import signal
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedray import executors, shipped
from fedray.engine import RunFailed
from fedray.executors.ray.wiring import in_turn
from fedray.executors.serial import SerialExecutor
from fedray.executors.split.client import SplitClients
from fedray.executors.split.server import SplitServer
from fedray.network.clock import time_round
from fedray.network.radio import Radio
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.planning.shared import shared
from fedray.planning.workload import measure
from fedray.report.page import write
from fedray.report.recorded import read
from fedray.report.recost import simulate_on_network
from fedray.steps import Pass
from fedray.transport.buffer import sha256
from tests.helpers import ARTISTS, begin, garments, job_of, rows, run, tiny

SGD = {
    "rounds": 2,
    "local_steps": 2,
    "batch_size": 8,
    "clip_norm": None,
    "optimizer": {"kind": "sgd", "learning_rate": 0.05},
}
ONE = {"training": SGD, "population": {"clients": 1}, "data.partition": {"kind": "iid"}}
SERIAL = {"executor": "serial", "failures": {"data": "abort"}}
FORMS = {
    "v1": {"variant": "splitfed_v1", "may_send": ["labels"]},
    "v2": {"variant": "splitfed_v2", "may_send": ["labels"]},
    "v2 in micro-batches": {"variant": "splitfed_v2", "may_send": ["labels"], "micro_batches": 3},
    "v2 in U-shape": {"variant": "splitfed_v2", "tail": "head"},
    "v2 in U-shape, in micro-batches": {"variant": "splitfed_v2", "tail": "loss", "micro_batches": 2},
    "vanilla": {"variant": "vanilla", "tail": "head"},
}


def split(cut, **more):
    return {"topology": {"kind": "split", "cut": cut, **more}, "runtime": SERIAL}


def difference(one, other, round=2):
    a, b = (
        load_file(folder / "checkpoints" / f"round-{round:04d}" / "weights.safetensors")
        for folder in (one, other)
    )
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(garments(folder, ONE), folder / "run")
    return folder / "run"


@pytest.mark.parametrize(
    ("form", "cut"), list(zip(FORMS.values(), ["conv1", "conv2"] * 3, strict=True)), ids=FORMS
)
def test_one_client_with_a_server_trains_as_the_unsplit_model_does(form, cut, whole, tmp_path):
    run(garments(tmp_path, ONE | split(cut, **form)), tmp_path / "run")
    assert difference(tmp_path / "run", whole) < 1e-6
    ours, theirs = (rows(folder / "metrics.jsonl")[-1] for folder in (tmp_path / "run", whole))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert ours["eval_accuracy"] == pytest.approx(theirs["eval_accuracy"], abs=0.005)


NETWORKS = {
    "resnet18": ({"model": {"kind": "classifier", "network": "resnet18"}}, ("layer1", "layer4")),
    "diffusion": (
        {
            "model": {
                "kind": "diffusion",
                "resolution": 16,
                "channels": [32, 64],
                "attention": [1],
                "layers": 1,
                "timesteps": 50,
            }
        },
        ("down_0", "up_1"),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_larger_networks_in_u_shape_train_as_unsplit_ones(name, tmp_path):
    changes, (cut, tail) = NETWORKS[name]
    changes = (
        ONE
        | changes
        | {
            "training": SGD | {"rounds": 1},
            "evaluation": {"inference_steps": 1, "images_per_prompt": 1},
        }
    )
    run(garments(tmp_path, changes, "whole.yaml"), tmp_path / "whole")
    run(garments(tmp_path, changes | split(cut, tail=tail), "split.yaml"), tmp_path / "split")
    assert difference(tmp_path / "split", tmp_path / "whole", 1) < 1e-5


def test_an_adapter_of_stable_diffusion_trains_in_u_shape_as_unsplit(tmp_path):
    """The text encoder's part of it, too; only the text goes up as it is."""
    changes = {
        "training": SGD | {"rounds": 1, "batch_size": 2},
        "population": {"clients": 1, "per_round": 1},
        "data.partition": {"kind": "iid"},
        "evaluation": {"prompts": []},
        "runtime": SERIAL,
    }
    run(tiny(tmp_path, changes | {"topology": {"kind": "parallel"}}, "whole.yaml"), tmp_path / "whole")
    run(
        tiny(tmp_path, changes | split("down_0", tail="up_0", may_send=["text"]), "split.yaml"),
        tmp_path / "split",
    )
    assert difference(tmp_path / "split", tmp_path / "whole", 1) < 1e-5
    told = json.loads((tmp_path / "split" / "split.json").read_text())
    assert told["inputs"] == ["text"]
    sent = sum(e["bytes"] for e in rows(tmp_path / "split" / "timeline.jsonl") if e["id"] == "smashed-0-0")
    assert sent == told["bytes"]["smashed"]
    assert (tmp_path / "split" / "model" / "pytorch_lora_weights.safetensors").is_file()


def events(executor, scenario, t=1):
    """A round in the clock's order, as the engine has it carried out."""
    from fedray.data import holdings

    known, radio = (
        shared(scenario, *holdings(scenario, executor.job.folder)),
        Radio(scenario.network, scenario.population.clients),
    )
    work = measure(scenario, executor.job.folder).of(scenario, known.samples)
    asked = schedule_round(scenario, radio, t, known, work)
    return asked.sorted({e.id: e.t0_s for e in time_round(asked, work, radio, 0.0)})


@pytest.fixture(scope="module")
def hosts(cluster, tmp_path_factory):
    """An executor of three client actors and a server, over pictures of its own; who wants fewer uses some of
    its hosts."""
    from fedray.executors.ray.executor import RayExecutor

    folder = tmp_path_factory.mktemp("hosts")
    data = shutil.copytree(shipped.HERE / "ink", folder / "ink")
    changes = ARTISTS | {"data.path": str(data), "runtime": {"actors": 3}}
    executor = RayExecutor(
        job_of(
            garments(
                folder,
                changes
                | {"topology": split("conv2", **FORMS["v2 in U-shape, in micro-batches"])["topology"]},
            )
        )[1]
    )
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def expected(hosts):
    """What one process makes of a round."""
    alone = SerialExecutor(hosts.job)
    begin(alone)
    return list(alone.run_round(events(alone, hosts.job.scenario))), sha256(alone.buffer)


def reports_of(executor):
    begin(executor)
    return list(executor.run_round(events(executor, executor.job.scenario)))


@pytest.mark.parametrize("actors", [1, 2, 3])
def test_any_number_of_actors_gives_the_weights_of_one_process(actors, cluster, hosts, expected, monkeypatch):
    monkeypatch.setattr(hosts, "hosts", hosts.hosts[:actors])
    reports = reports_of(hosts)
    assert (reports, sha256(cluster.get(hosts.buffer))) == expected
    assert sorted(r.client for r in reports) == [*range(5)]


@pytest.mark.parametrize("who", ["a client", "the server"])
def test_a_round_that_loses_an_actor_is_done_again_with_the_same_bits(
    who, cluster, hosts, expected, monkeypatch
):
    notes = []
    monkeypatch.setattr(hosts, "note", notes.append)
    begin(hosts)
    plan = events(hosts, hosts.job.scenario)
    actor = hosts.hosts[1].actor if who == "a client" else hosts.server
    pid = cluster.get(actor.pid.remote())

    def killing(server):
        """Once the round has begun, it stands still, and then it dies."""
        asked = in_turn(server)

        def and_kills(method, *arguments):
            answer = asked(method, *arguments)
            if method == "begin" and not notes:
                os.kill(pid, signal.SIGSTOP)
                threading.Timer(1.0, os.kill, (pid, signal.SIGKILL)).start()
            return answer

        return and_kills

    monkeypatch.setattr(executors.ray.wiring, "in_turn", killing)
    reports = list(hosts.run_round(plan))
    assert len(notes) == 1
    assert "round 1" in notes[0]
    by_client = {(r.round, r.client): r for r in reports}
    assert by_client == {(r.round, r.client): r for r in expected[0]}
    assert sha256(cluster.get(hosts.buffer)) == expected[1]


def test_a_client_whose_image_is_damaged_is_left_out_without_touching_the_server_s_part(
    cluster, hosts, monkeypatch
):
    """On Ray and in one process: the round is done again without it."""
    alone, without = SerialExecutor(hosts.job), SerialExecutor(hosts.job)
    begin(hosts)
    begin(alone)
    begin(without)
    schedule = events(hosts, hosts.job.scenario)
    list(without.run_round(schedule.without(3)))
    damaged = alone.clients.samples.files[alone.clients.client_indices[3][0]]
    whole = damaged.read_bytes()
    try:
        damaged.write_bytes(whole[:100])
        told = {
            name: list(tried.run_round(schedule))
            for name, tried in (("on Ray", hosts), ("in one process", alone))
        }
    finally:
        damaged.write_bytes(whole)
    for reports in told.values():
        (failed,) = [r for r in reports if r.failure]
        assert (failed.client, failed.stage) == (3, "preparing its data")
        assert str(damaged) in failed.failure
        assert {r.client for r in reports} == {0, 1, 2, 3, 4}
    last = [{r.client: r for r in reports} for reports in told.values()]
    assert last[0] == last[1]
    assert sha256(cluster.get(hosts.buffer)) == sha256(alone.buffer) == sha256(without.buffer)


def test_a_loss_that_is_not_finite_is_its_client_s_failure_and_aborts_where_failures_do(tmp_path):
    training = SGD | {"optimizer": {"kind": "sgd", "learning_rate": 1e30}}
    changes = {"training": training, "topology": {"kind": "split", "cut": "conv2", "tail": "loss"}}
    with pytest.raises(
        RunFailed, match=r"client \d in round 1, while training: the (loss|gradient) of step 2 is"
    ):
        run(garments(tmp_path, changes | {"runtime": SERIAL}), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").read_text()


COMPRESSED = {
    "as they are": [],
    "in 8 bits": [{"kind": "quantize", "bits": 8}],
    "a tenth of them": [{"kind": "top_k", "fraction": 0.1}],
    "a tenth in 4 bits": [{"kind": "top_k", "fraction": 0.1}, {"kind": "quantize", "bits": 4}],
}


def first_batch(work, server, client=0):
    """The messages of a client's first batch, by what crosses."""
    base, _, state = server.initial()
    server.begin(0, 1, base, state)
    message, sent = base, {}
    for stage, crossing in (
        ("front", "smashed"),
        ("server_forward", "features"),
        ("tail", "feature_gradients"),
        ("server_backward", "gradients"),
    ):
        step = Pass(f"{stage}-0-0", client, stage, 0, 0, 1, 8, ())
        message = server.go(0, 1, step, message) if step.node == "server" else work.go(1, step, None, message)
        sent[crossing] = message
    return sent


@pytest.mark.parametrize("compression", COMPRESSED.values(), ids=COMPRESSED)
def test_bytes_on_the_air_are_the_messages_own(compression, tmp_path):
    _, job = job_of(garments(tmp_path, split("conv1", tail="head", compression=compression)))
    work, server = SplitClients(job, torch.device("cpu")), SplitServer(job, torch.device("cpu"))
    counted = measure(job.scenario, job.folder).cut
    sent = first_batch(work, server)
    assert {crossing: message.data.nbytes for crossing, message in sent.items()} == {
        c: counted.bytes[c][8] for c in sent
    }
    if compression == COMPRESSED["in 8 bits"]:
        assert sent["smashed"].data.nbytes < 8 * 32 * 13 * 13 * 1.1


def test_in_u_shape_nothing_leaves_a_client_but_activations_and_their_gradients(tmp_path):
    _, job = job_of(garments(tmp_path, split("conv1", tail="head")))
    work, server = SplitClients(job, torch.device("cpu")), SplitServer(job, torch.device("cpu"))
    sent = first_batch(work, server)
    assert {c: [(f.names, f.shape, f.dtype) for f in m.headers] for c, m in sent.items()} == {
        "smashed": [(("x",), (8, 32, 13, 13), torch.float32)],
        "features": [(("x",), (8, 128), torch.float32)],
        "feature_gradients": [(("x",), (8, 128), torch.float32)],
        "gradients": [(("x",), (8, 32, 13, 13), torch.float32)],
    }


def test_neither_side_holds_the_weights_of_the_other(tmp_path):
    _, job = job_of(garments(tmp_path, split("conv1", tail="head")))
    held = {}
    for side, work in (
        ("client", SplitClients(job, torch.device("cpu"))),
        ("server", SplitServer(job, torch.device("cpu"))),
    ):
        network = work.model.learner.parts["network"]
        held[side] = {name.split(".")[0] for name, p in network.named_parameters() if not p.is_meta}
    assert held == {"client": {"0", "9"}, "server": {"3", "7"}}


def test_the_server_part_of_v1_is_the_mean_of_copies_and_that_of_v2_has_made_every_step(tmp_path):
    """With one step a client and plain SGD: v1's mean of n steps, against v2's n steps in a row, which is
    about n times as far."""
    far = {}
    for variant in ("splitfed_v1", "splitfed_v2"):
        changes = split("conv2", variant=variant, may_send=["labels"]) | {
            "training": SGD | {"rounds": 1, "local_steps": 1}
        }
        _, job = job_of(garments(tmp_path, changes, f"{variant}.yaml"))
        executor = SerialExecutor(job)
        begin(executor)
        before = executor.layout.flat(executor.buffer)
        list(executor.run_round(events(executor, job.scenario)))
        moved = executor.layout.flat(executor.buffer) - before
        server, client = executor.split.model.server.places, executor.split.model.client.places
        far[variant] = (float(moved[server].norm()), float(moved[client].norm()))
    assert far["splitfed_v2"][0] > 3 * far["splitfed_v1"][0]
    assert far["splitfed_v2"][1] == pytest.approx(far["splitfed_v1"][1], rel=0.3)


def test_a_resumed_split_run_has_the_bits_of_a_whole_one(tmp_path):
    changes = split("conv2", tail="loss") | {"training": SGD | {"rounds": 3}}
    file = garments(tmp_path, changes)
    whole = run(file, tmp_path / "whole")
    run(file, tmp_path / "broken")
    for place in (tmp_path / "broken" / "checkpoints" / "round-0003",):
        shutil.rmtree(place)
    (tmp_path / "broken" / "result.json").unlink()
    again = run(file, tmp_path / "broken", resume=True)
    assert again["weights_sha256"] == whole["weights_sha256"]


REFUSED = {
    "a cut that is not there": (
        {"cut": "conv3", "tail": "loss"},
        "topology.cut: got 'conv3', expected auto, or one of conv1, conv2, dense, head",
    ),
    "a tail before its front": (
        {"cut": "dense", "tail": "conv1"},
        "topology.tail: got 'conv1', expected auto, or one of loss",
    ),
    "a loss without labels": (
        {"cut": "conv1"},
        "topology.may_send: got nothing, without a tail, expected a tail, which keeps labels",
    ),
    "labels that would leave": (
        {"cut": "conv1", "may_send": ["images"]},
        (
            "a cut (conv1) that sends the server each client's labels, expected a tail, which keeps it at"
            " home, or may_send: [labels]"
        ),
    ),
    "a scaffold": ({"cut": "conv1", "tail": "loss"}, "aggregation.kind: got scaffold in a split"),
    "halves of floats": ({"cut": "conv1", "tail": "loss"}, "training.precision: got fp16 in a split"),
    "more micro-batches than samples": (
        {"cut": "conv1", "micro_batches": 9},
        "topology.micro_batches: got 9, expected at most",
    ),
    "compressions in the wrong order": (
        {
            "cut": "conv1",
            "compression": [{"kind": "quantize", "bits": 8}, {"kind": "top_k", "fraction": 0.5}],
        },
        "topology.compression: got quantize, top_k, expected top_k, quantize, or both in this order",
    ),
    "what is no input": (
        {"cut": "conv1", "may_send": ["labels", "lables"]},
        "topology.may_send: got lables, expected some of images",
    ),
    "a chain that drops": (
        {"cut": "conv1", "tail": "loss", "variant": "vanilla"},
        "runtime.failures.data: got drop for vanilla",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_split_cannot_do_is_a_line_of_the_scenario(what, tmp_path, fedray):
    topology, message = REFUSED[what]
    changes = {"topology": {"kind": "split", **topology}, "runtime": {"executor": "serial"}}
    if what == "a scaffold":
        changes["aggregation"] = {"kind": "scaffold"}
    if what == "halves of floats":
        changes["training"] = SGD | {"precision": "fp16"}
    code, _, err = fedray("plan", garments(tmp_path, changes))
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_cut_whose_skips_would_have_to_cross_is_refused_where_they_are_to_stay_home(tmp_path, fedray):
    model = {
        "model": {"kind": "diffusion", "resolution": 16, "channels": [32, 64], "layers": 1, "attention": [1]}
    }
    beside = garments(tmp_path, model | split("in", tail="up_1", skips="home"), "beside.yaml")
    code, _, err = fedray("plan", beside)
    assert code == 2
    assert "topology.skips: got home, with a cut (in .. up_1) that" in err
    assert (
        fedray("plan", garments(tmp_path, model | split("down_0", tail="up_1", skips="home"), "level.yaml"))[
            0
        ]
        == 0
    )


def test_plan_counts_every_cut_and_auto_takes_the_one_with_the_shortest_first_round(tmp_path):
    loaded, _ = job_of(garments(tmp_path, split("auto", tail="auto")))
    planned = plan(loaded)
    cuts = planned["cuts"]
    assert [(c["cut"], c["tail"]) for c in cuts] == [
        ("conv1", "dense"),
        ("conv1", "head"),
        ("conv1", "loss"),
        ("conv2", "head"),
        ("conv2", "loss"),
        ("dense", "loss"),
    ]
    best = min(cuts, key=lambda c: c["first_round"]["sim_time_s"])
    assert planned["cut"] == f"{best['cut']} .. {best['tail']}"
    assert planned["total"]["sim_time_s"] == pytest.approx(2 * best["first_round"]["sim_time_s"])
    for c in cuts:  # the two sides are the whole model, whose work does not depend on where it is cut
        assert sum(c["flops_per_sample"].values()) == pytest.approx(planned["flops_per_sample"])
        assert sum(c["parameters"].values()) == planned["parameters"]
    work = [c["flops_per_sample"]["client"] for c in cuts if c["tail"] == "loss"]
    assert work == sorted(work)  # the client's work grows with its part


@pytest.mark.parametrize(("key", "little"), [("deadline_s", 1e-6), ("device.memory_bytes", 1.0)])
def test_what_is_too_little_for_every_cut_is_refused_with_what_the_least_demanding_takes(
    key, little, tmp_path, fedray
):
    def plan_with(cut, value):
        file = garments(tmp_path, split(cut, tail="loss"), f"{cut}.yaml")
        return fedray("plan", file, "--set", f"network.{key}={value}")[::2]

    least = {}
    for cut in ("conv1", "conv2", "dense", "auto"):
        code, err = plan_with(cut, little)
        assert code == 2
        least[cut] = float(re.search(rf"network.{key}: got .*, expected at least ([\d.e+-]+)", err)[1])
    assert least["auto"] == min(least["conv1"], least["conv2"], least["dense"])
    assert len(set(least.values())) == 3
    assert plan_with("auto", 1.01 * least["auto"])[0] == 0


def test_a_defence_makes_activations_tell_less(tmp_path):
    """Normal noise, against the same run without it: the attacker's pictures and the correlation get
    worse."""
    told = {}
    for name, more in (("bare", {}), ("noisy", {"defence": {"kind": "noise", "std": 2.0}})):
        changes = split("conv1", tail="loss", **more) | {
            "training": SGD | {"rounds": 1},
            "evaluation": {"leakage": {"samples": 64, "attack_steps": 60}},
        }
        run(garments(tmp_path, changes, f"{name}.yaml"), tmp_path / name)
        told[name] = rows(tmp_path / name / "metrics.jsonl")[-1]
    assert told["noisy"]["eval_distance_correlation"] < told["bare"]["eval_distance_correlation"]
    assert told["noisy"]["eval_reconstruction_error"] > told["bare"]["eval_reconstruction_error"]
    assert (tmp_path / "bare" / "samples" / "attack-0001.png").is_file()
    page = write([tmp_path / "bare", tmp_path / "noisy"]).read_text()
    assert "What crosses the cut" in page
    assert "all inputs and labels stay with the clients" in page
    assert "titcombe2021practical" in page
    assert page.count("what an attacker makes of their activations") >= 2


def test_distance_correlation_in_the_loss_lowers_it(tmp_path):
    told = {}
    training = SGD | {"rounds": 2, "local_steps": 8, "optimizer": {"kind": "sgd", "learning_rate": 0.05}}
    for name, more in (
        ("bare", {}),
        ("nopeek", {"defence": {"kind": "distance_correlation", "weight": 30.0}}),
    ):
        changes = split("conv1", tail="loss", **more) | {
            "training": training,
            "evaluation": {"leakage": {"samples": 64, "attack_steps": 1}},
        }
        run(garments(tmp_path, changes, f"{name}.yaml"), tmp_path / name)
        told[name] = rows(tmp_path / name / "metrics.jsonl")[-1]["eval_distance_correlation"]
    assert told["nopeek"] < told["bare"]


def test_a_round_s_schedule_in_the_clocks_order_serves_several_clients_at_once(tmp_path):
    _, job = job_of(garments(tmp_path, split("conv1", tail="loss")))
    executor = SerialExecutor(job)
    served = [s.client for s in events(executor, job.scenario) if isinstance(s, Pass) and s.node == "server"]
    assert served != sorted(served)
    assert np.bincount(served).tolist() == [2] * 5  # a batch of each, forwards and backwards


def test_a_split_run_is_costed_on_another_network_as_one_that_ran_there(tmp_path):
    slow = {"kind": "fixed", "rate_bps": 1.0e6}
    changes = split("conv2", tail="loss") | {"training": SGD | {"rounds": 1}}
    run(garments(tmp_path, changes, "here.yaml"), tmp_path / "here")
    there = garments(tmp_path, changes | {"network.uplink": slow}, "there.yaml")
    run(there, tmp_path / "there")
    (ours,) = read([tmp_path / "here"])
    (theirs,) = read([tmp_path / "there"])
    again = simulate_on_network(ours, there)
    assert again.rows[-1]["sim_time_s"] == pytest.approx(theirs.rows[-1]["sim_time_s"])
    assert again.rows[-1]["energy_j"] == pytest.approx(theirs.rows[-1]["energy_j"])
    assert again.rows[-1]["sim_time_s"] > 2 * ours.rows[-1]["sim_time_s"]


def test_by_timestep_the_server_is_sent_noised_pictures_and_gives_back_nothing_but_its_loss(tmp_path):
    """CollaFuse: no gradient comes down, since what the server learns does not depend on the client's
    network."""
    model = {
        "kind": "diffusion",
        "resolution": 16,
        "channels": [32, 64],
        "attention": [1],
        "layers": 1,
        "timesteps": 50,
        "server_from": 20,
    }
    changes = split("client", tail="loss") | {
        "model": model,
        "training": SGD,
        "evaluation": {"inference_steps": 2, "images_per_prompt": 1},
    }
    run(garments(tmp_path, changes), tmp_path / "run")
    told = json.loads((tmp_path / "run" / "split.json").read_text())
    assert told["inputs"] == []
    assert [c["names"] for c in told["crossings"]["smashed"]] == [["cut_images"]]
    assert told["bytes"] == {
        "smashed": 8 * 16 * 16 * 4,
        "gradients": 0,
        "features": 8 * 4,
        "feature_gradients": 8 * 4,
    }
    for place, timesteps in (("model", 30), ("model/client", 20)):
        config = json.loads((tmp_path / "run" / place / "scheduler" / "scheduler_config.json").read_text())
        assert config["num_train_timesteps"] == timesteps


def test_a_batch_s_gradient_is_that_of_the_weights_it_first_passed_through(tmp_path):
    """Two clients in flight in U-shape: the second's way back begins after the first's step. With plain SGD
    the server's part has gone as far as with each of them alone, added up."""
    _, job = job_of(garments(tmp_path, split("conv1", tail="head")))
    work, server = SplitClients(job, torch.device("cpu")), SplitServer(job, torch.device("cpu"))
    base, _, state = server.initial()

    def moved(*clients):
        server.begin(0, 1, base, state)
        at = dict.fromkeys(clients, base)
        for stage in ("front", "server_forward", "tail", "server_backward"):
            for k in clients:
                step = Pass(f"{stage}-{k}-0", k, stage, 0, 0, 1, 8, ())
                at[k] = (
                    server.go(0, 1, step, at[k]) if step.node == "server" else work.go(1, step, None, at[k])
                )
        return server.weights[0].all() - server.part.numbers(base)

    one, other, both = moved(0), moved(1), moved(0, 1)
    assert torch.allclose(both, one + other, atol=1e-6)
    assert float((one - other).abs().max()) > 1e-4


def test_no_side_clips_its_part_alone_unless_it_is_asked_to(tmp_path):
    training = {k: v for k, v in SGD.items() if k != "clip_norm"}
    trained = {}
    for name, changes in {
        "default": split("conv1", tail="loss") | {"training": training},
        "none": split("conv1", tail="loss") | {"training": SGD},
        "each": split("conv1", tail="loss") | {"training": SGD | {"clip_norm": 1.0}},
    }.items():
        trained[name] = run(garments(tmp_path, ONE | changes, f"{name}.yaml"), tmp_path / name)[
            "weights_sha256"
        ]
    assert trained["default"] == trained["none"] != trained["each"]


def test_a_client_without_weights_of_its_own_helps_to_train_the_server_s(tmp_path):
    """An adapter that lies on the server's side alone."""
    changes = {
        "training": SGD | {"rounds": 1, "batch_size": 2},
        "population": {"clients": 1, "per_round": 1},
        "data.partition": {"kind": "iid"},
        "tuning": {"kind": "lora", "rank": 2},
        "evaluation": {"prompts": []},
        "runtime": SERIAL,
    }
    run(tiny(tmp_path, changes | {"topology": {"kind": "parallel"}}, "whole.yaml"), tmp_path / "whole")
    run(
        tiny(tmp_path, changes | split("in", tail="out", may_send=["text"]), "split.yaml"), tmp_path / "split"
    )
    assert difference(tmp_path / "split", tmp_path / "whole", 1) < 1e-5
    told = json.loads((tmp_path / "split" / "split.json").read_text())
    assert (told["part_bytes"], told["trainable"]["client"]) == (0, 0)
    assert told["parameters"]["client"] > 400_000  # with the autoencoder, which encodes its pictures


def test_in_half_precision_half_the_bytes_cross(tmp_path):
    for compression in ([], COMPRESSED["a tenth of them"]):
        changes = split("conv1", tail="head", compression=compression) | {
            "training": SGD | {"precision": "bf16"}
        }
        _, job = job_of(garments(tmp_path, changes))
        work, server = SplitClients(job, torch.device("cpu")), SplitServer(job, torch.device("cpu"))
        counted = measure(job.scenario, job.folder).cut
        sent = first_batch(work, server)
        assert {crossing: message.data.nbytes for crossing, message in sent.items()} == {
            c: counted.bytes[c][8] for c in sent
        }
        assert compression or counted.bytes["smashed"][8] == 2 * 8 * 32 * 13 * 13


def test_an_update_that_cannot_be_summed_is_its_client_s_failure(tmp_path):
    refuse_what_cannot_be_summed({"executor": "serial"}, tmp_path)


def test_on_ray_too_an_update_that_cannot_be_summed_is_its_client_s_failure(cluster, weights_alone, tmp_path):
    refuse_what_cannot_be_summed({"executor": "ray", "actors": 1}, tmp_path)


def refuse_what_cannot_be_summed(runtime, tmp_path):
    training = SGD | {"rounds": 1, "local_steps": 1, "optimizer": {"kind": "sgd", "learning_rate": 3e4}}
    changes = {
        "training": training,
        "topology": {"kind": "split", "cut": "conv1", "tail": "loss", "variant": "splitfed_v1"},
    }
    with pytest.raises(
        RunFailed,
        match=(
            r"no client of round 1 trained; the first: client \d, while training: an update changes a"
            r" weight by"
        ),
    ):
        run(
            garments(tmp_path, changes | {"runtime": runtime, "population": {"clients": 2}}),
            tmp_path / "run",
        )


def test_a_batch_of_one_has_no_distances_to_correlate_and_trains_all_the_same(tmp_path):
    changes = split("conv1", tail="loss", defence={"kind": "distance_correlation", "weight": 1.0})
    training = SGD | {"rounds": 1, "local_steps": None, "local_epochs": 1, "batch_size": 4}
    changes |= {
        "training": training,
        "data.partition": {"kind": "iid", "samples": 9},
        "population": {"clients": 2},
    }
    run(garments(tmp_path, changes), tmp_path / "run")
    (row,) = rows(tmp_path / "run" / "metrics.jsonl")
    assert (row["clients"], row["failed"], row["samples"]) == (2, 0, 18)


def test_a_defence_that_no_client_s_weight_can_follow_is_refused(tmp_path, fedray):
    model = {
        "kind": "diffusion",
        "resolution": 16,
        "channels": [32, 64],
        "layers": 1,
        "attention": [1],
        "server_from": 500,
    }
    changes = {"model": model} | split("client", defence={"kind": "distance_correlation", "weight": 1.0})
    code, _, err = fedray("plan", garments(tmp_path, changes))
    assert code == 2
    assert "topology.defence: got distance_correlation beside model.server_from" in err
