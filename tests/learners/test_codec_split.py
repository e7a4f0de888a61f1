"""A codec in a split: the cut is the air, what goes up is symbols, and what they take is airtime."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedray.checks import check
from fedray.data import holdings
from fedray.executors.local_training import batches
from fedray.executors.serial import SerialExecutor
from fedray.executors.split.client import SplitClients
from fedray.learners.codec_channels import transmitted
from fedray.learners.codec_linear import GREY
from fedray.network.clock import time_round
from fedray.network.ledger import Ledger
from fedray.network.radio import Radio
from fedray.planning.cuts import refusal
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.planning.shared import shared
from fedray.planning.workload import measure
from fedray.randomness import generator, key
from fedray.report.page import write as write_report
from fedray.report.recorded import read
from fedray.report.recost import simulate_on_network
from fedray.scenario import ScenarioError
from fedray.scenario.split_defence import Noise
from fedray.steps import Pass
from fedray.transport.messages import unpack
from tests.helpers import begin, garments, job_of, rows, run

HZ = 1e6
AIR = {"kind": "log_distance", "bandwidth_hz": HZ, "shadowing_db": 0, "fading": "none"}
WIRED = {"kind": "fixed", "rate_bps": 1e8}
SPLIT = {"kind": "split", "cut": "channel", "tail": "loss"}
CODEC = {
    "kind": "codec",
    "channel": {"kind": "rayleigh", "snr_db": [0, 15]},
    "width": 4,
    "hidden": 8,
    "resolution": 8,
}
USES = 8  # of an image of 64 numbers
SGD = {"kind": "sgd", "learning_rate": 0.05}
SMALL = {
    "model": CODEC,
    "topology": SPLIT,
    "population": {"clients": 2, "per_round": 2},
    "training": {"rounds": 1, "local_steps": 2, "batch_size": 6, "clip_norm": None, "optimizer": SGD},
    "runtime": {"executor": "serial", "failures": {"data": "abort"}},
    "network.uplink": AIR,
    "network.downlink": WIRED,
    "network.cell": {"placement": {"kind": "disc", "radius_m": 200}},
}
PARALLEL = {"topology": {"kind": "parallel"}}


def scheduled(executor, t=1):
    """A round, and its events, in the clock's order."""
    scenario = executor.job.scenario
    known = shared(scenario, *holdings(scenario, executor.job.folder))
    radio = Radio(scenario.network, scenario.population.clients, scenario.seed)
    work = measure(scenario, executor.job.folder).of(scenario, known.samples)
    schedule = schedule_round(scenario, radio, t, known, work)
    events = time_round(schedule, work, radio, 0.0)
    return schedule.sorted({e.id: e.t0_s for e in events}), events


def trained(file, rounds=1):
    """The model's tensors after so many rounds in one process."""
    executor = SerialExecutor(job_of(file)[1])
    begin(executor)
    for t in range(1, rounds + 1):
        reports = list(executor.run_round(scheduled(executor, t)[0]))
        assert all(np.isfinite(report.loss) for report in reports)
    return executor.layout.tensors(executor.buffer), reports


@pytest.fixture(scope="module")
def executor(tmp_path_factory):
    """Of two clients with unequal data, in which the uplink says how much noise there is."""
    channel = CODEC["channel"] | {"of_uplink": True}
    file = garments(tmp_path_factory.mktemp("air"), SMALL | {"model": CODEC | {"channel": channel}})
    made = SerialExecutor(job_of(file)[1])
    begin(made)
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    looks = {"leakage": {"samples": 16, "attack_steps": 2}}
    run(garments(folder, SMALL | {"evaluation": looks}), folder / "run")
    return folder / "run"


# What is learned


@pytest.mark.parametrize(
    ("start", "variant", "clients"), [("linear", "splitfed_v1", 2), ("random", "vanilla", 1)]
)
def test_clients_and_their_server_learn_over_the_air_what_whole_codecs_learn(
    start, variant, clients, tmp_path
):
    """The same images, ratios, gains and noise; two rounds, so that moments come back too."""
    changes = SMALL | {"population": {"clients": clients}, "model": CODEC | {"start": start}}
    split = garments(tmp_path, changes | {"topology": SPLIT | {"variant": variant}}, "split.yaml")
    over_the_air, reports = trained(split, 2)
    whole, others = trained(garments(tmp_path, changes | PARALLEL, "whole.yaml"), 2)
    assert over_the_air.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.allclose(over_the_air[name], tensor, rtol=1e-4, atol=1e-5), name
    assert reports[0].loss == pytest.approx(others[0].loss, rel=1e-5)


def test_clients_side_by_side_in_a_worker_each_tell_their_own_moments(tmp_path):
    """After an epoch the server has the moments of all their images."""
    epoch = SMALL["training"] | {"local_steps": None, "local_epochs": 1, "batch_size": 500}
    file = garments(tmp_path, SMALL | {"training": epoch, "population": {"clients": 3}})
    tensors, _ = trained(file)
    clients = SerialExecutor(job_of(file)[1]).clients
    flat = torch.cat([clients.shard(k, 1).images.flatten(1).float() / 255 for k in range(3)])
    assert len(flat) == 2500
    assert torch.allclose(tensors["encoder.moments.mean"], flat.mean(0) - GREY, atol=1e-5)


# What arrives


def drawn_again(clients, client):
    """A client's first batch, of the keys that it draws from."""
    scenario = clients.job.scenario
    held = len(clients.client_indices[client])
    rng = generator(scenario.seed, 1, client, "batches")
    first = next(iter(batches(scenario.training.batches(held), held, rng)))
    draws = torch.Generator().manual_seed(key(scenario.seed, 1, client, "noise"))
    return clients.learner.draw(clients.shard(client, 1), first, draws)


def test_the_server_gets_the_clients_symbols_with_the_noise_of_its_uplink(executor):
    schedule, _ = scheduled(executor)
    step = next(s for s in schedule if isinstance(s, Pass) and s.client == 1)
    clients = SplitClients(executor.job, torch.device("cpu"))
    learner = clients.learner
    message = clients.go(1, step, None, executor.initial)
    values = dict(unpack(message, clients.model.wire_up, 0, torch.device("cpu")))
    assert list(values) == [("received",), ("received_snr_db",), ("received_gain",)], "and no image"
    received, snr_db, gain = values.values()
    batch = learner.at_snr(drawn_again(clients, 1), step.snr_db)
    assert torch.equal(snr_db, torch.full((6,), step.snr_db))
    learner.encoder.eval()
    symbols = learner.encode_images(batch.images, batch.snr_db)
    expected = transmitted(symbols, batch.gain, batch.snr_db, batch.noise)
    assert torch.allclose(received, expected, atol=1e-5)
    assert torch.equal(gain, batch.gain)


def test_an_uplinks_ratio_is_that_of_power_path_and_noise_in_its_share_of_the_band(executor):
    """P - (128.1 + 37.6 log10(d / km)) - (-174 + 10 log10(B / 2) + 5), two clients at once."""
    schedule, _ = scheduled(executor)
    ratios = {
        step.client: step.snr_db for step in schedule if isinstance(step, Pass) and step.stage == "front"
    }
    scenario = executor.job.scenario
    cell = scenario.network.cell
    places = Radio(scenario.network, 2, scenario.seed).geometry.at(0.0)
    for client, (x, y) in enumerate(places):
        d = np.sqrt(x**2 + y**2 + (cell.server_height_m - cell.device_height_m) ** 2)
        loss = 128.1 + 37.6 * np.log10(d / 1000)
        expected = 23.0 - loss + 174 - 10 * np.log10(HZ / 2) - 5
        assert ratios[client] == pytest.approx(expected, abs=0.01)


# What it costs


def test_symbols_take_a_second_and_hertz_each_of_a_clients_share_and_its_power(executor):
    _, events = scheduled(executor)
    sent = [e for e in events if e.id.startswith("smashed")]
    assert len(sent) == 4, "two batches of two clients"
    for e in sent:
        assert e.bytes == 0
        assert e.symbols == 6 * USES
        assert e.t1_s - e.t0_s == pytest.approx(6 * USES / (HZ / 2))
        assert e.energy_j == pytest.approx(10 ** ((23.0 - 30) / 10) * 6 * USES / (HZ / 2))
        assert e.row()["symbols"] == 6 * USES
    others = [e for e in events if e.event == "send" and e not in sent]
    assert all(e.bytes > 0 and "symbols" not in e.row() for e in others), "gradients are bytes"
    total = Ledger().add(events)
    assert total.totals()["symbols"] == 4 * 6 * USES
    assert total.bytes_uplink == sum(e.bytes for e in others if e.direction == "uplink")


def test_a_plan_counts_symbols_and_no_bytes_for_what_goes_up(tmp_path):
    made = plan(check(garments(tmp_path, SMALL | {"topology": SPLIT | {"cut": "auto", "tail": "auto"}})))
    assert made["cut"] == "channel .. loss"
    assert len(made["cuts"]) == 1, "there is no other"
    about = made["cuts"][0]
    assert about["symbols_per_batch"] == {"smashed": 6 * USES}
    assert about["bytes_per_batch"]["smashed"] == 0
    assert about["bytes_per_batch"]["gradients"] == 4 * 6 * 2 * USES
    assert about["bytes_per_batch"]["features"] == 4 * 6 * 64
    assert made["total"]["symbols"] == 4 * 6 * USES


def test_a_run_records_symbols_and_its_report_shows_them(finished):
    assert rows(finished / "metrics.jsonl")[-1]["symbols"] == 4 * 6 * USES
    assert (finished / "samples" / "attack-0001.png").is_file(), "what arrives is what a server looks at"
    page = write_report([finished]).read_text()
    assert "48 symbols" in page


def test_a_recorded_run_is_costed_on_another_band_and_not_on_a_link_without_one(finished, tmp_path):
    file = finished.parent / "garments.yaml"
    wider = garments(tmp_path, SMALL | {"network.uplink": AIR | {"bandwidth_hz": 2 * HZ}}, "wider.yaml")
    (recorded,) = read([finished])
    once, twice = (
        sum(e["t1_s"] - e["t0_s"] for e in simulate_on_network(recorded, f).events if e.get("symbols"))
        for f in (file, wider)
    )
    assert once == pytest.approx(2 * twice)
    wired = garments(tmp_path, SMALL | PARALLEL | {"network.uplink": WIRED}, "wired.yaml")
    # a learner of one's own may have a section that says nothing
    silent = recorded.scenario | {"model": {"kind": "classifier", "network": "cnn"}}
    recorded = replace(recorded, scenario=silent | {"topology": {"kind": "parallel"}})
    with pytest.raises(ScenarioError, match=r"network\.uplink\.kind: got fixed, which has no band"):
        simulate_on_network(recorded, wired)


# What cannot be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network.uplink": WIRED}, r"network\.uplink\.kind: got fixed for a codec in a split"),
        ({"topology": SPLIT | {"cut": "encode"}}, r"topology\.cut: got encode for a codec, expected channel"),
        (
            {"topology": SPLIT | {"tail": None, "may_send": ["images"]}},
            r"topology\.tail: got none for a codec",
        ),
        (
            {"topology": SPLIT | {"compression": [{"kind": "quantize", "bits": 8}]}},
            r"topology\.compression: got quantize for a codec",
        ),
        (
            {"topology": SPLIT | {"defence": {"kind": "noise", "std": 0.1}}},
            r"topology\.defence: got noise for a codec",
        ),
        ({"topology": SPLIT | {"variant": "vanilla"}}, r"model\.start: got linear for vanilla"),
        (
            PARALLEL | {"model": CODEC | {"channel": {"kind": "awgn", "of_uplink": True}}},
            r"model\.channel\.of_uplink: got true in a parallel",
        ),
    ],
)
def test_what_does_not_go_over_the_air_is_refused_by_name(changes, message, tmp_path):
    with pytest.raises(ScenarioError, match=message):
        check(garments(tmp_path, SMALL | changes))


def test_a_learner_of_ones_own_that_has_a_channel_is_refused_a_link_without_a_band(tmp_path):
    """Whatever its section says: its stages tell."""
    loaded = check(garments(tmp_path, SMALL))
    cut = measure(loaded.scenario, loaded.folder).cut
    assert refusal(loaded.scenario, cut) is None
    network = loaded.scenario.network
    wired = network.model_copy(update={"uplink": network.downlink})
    reason = refusal(loaded.scenario.model_copy(update={"network": wired}), cut)
    assert str(reason).startswith("network.uplink.kind: got fixed, which has no band, at a cut (channel")
    noisy = {"defence": Noise(kind="noise", std=0.1)}
    split = loaded.scenario.split.model_copy(update=noisy)
    reason = refusal(loaded.scenario.model_copy(update={"topology": split}), cut)
    assert str(reason).startswith("topology.defence: got noise at a cut (channel")
