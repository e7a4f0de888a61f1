"""Over-the-air aggregation: closed forms of the channel, the noise on the sum, and whole runs."""

import math

import numpy as np
import pytest
import torch
from scipy.special import exp1

from fedray import checks
from fedray.aggregation.superposed import SuperposedSum
from fedray.executors.serial import SerialExecutor
from fedray.network.geometry import Geometry
from fedray.network.ledger import Ledger
from fedray.network.links import LinkContext, RoundStart, TransferRequests
from fedray.network.over_the_air import OverTheAirLink, mean_inverse_power
from fedray.network.radio import Radio
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.report import recorded
from fedray.report.recost import simulate_on_network
from fedray.scenario import ScenarioError
from fedray.scenario.cell import Cell, Places
from fedray.scenario.over_the_air import OverTheAir
from tests.helpers import ONE_ACTOR, begin, garments, job_of, rows, run, timeless, unevaluated

HZ = 1.0e6
CHANNEL = {
    "kind": "log_distance",
    "bandwidth_hz": HZ,
    "shadowing_db": 0.0,
    "transmit_dbm": 10.0,
    "fading": "rayleigh",
}
NEAR = ((100.0, 0.0), (200.0, 0.0), (150.0, 0.0))


def link(at=NEAR, threshold=0.1, seed=0, **channel):
    section = OverTheAir(kind="over_the_air", threshold=threshold, channel=CHANNEL | channel)
    geometry = Geometry(
        Cell(placement=Places(kind="places", at=[list(p) for p in at]), server_height_m=1.5), len(at), seed
    )
    return OverTheAirLink(section, LinkContext("uplink", clients=len(at), seed=seed, geometry=geometry))


def requests(*clients):
    n = np.array(clients)
    return TransferRequests(n, np.full_like(n, -1), 0 * n, 1 + 0 * n, np.ones(len(n)), 0 * n)


def snr_at(metres, dbm=10.0):
    """10 dBm over 128.1 + 37.6 log10(km), and -174 dBm/Hz with a noise figure of 5 dB."""
    return 10 ** ((dbm - (128.1 + 37.6 * math.log10(metres / 1000)) - (-174 + 10 * math.log10(HZ) + 5)) / 10)


@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_as_many_clients_are_silent_as_a_rayleigh_channel_is_weaker_than_the_threshold(threshold):
    clients = range(6000)
    one = link(at=((100.0, 0.0),) * len(clients), threshold=threshold)
    silent = one.symbol_transfers(RoundStart(1, 0.0), requests(*clients), np.ones(len(clients))).lost
    assert silent.mean() == pytest.approx(1 - math.exp(-threshold), abs=4 * 0.5 / math.sqrt(len(clients)))


def test_inverting_a_channel_takes_what_the_exponential_integral_says():
    assert mean_inverse_power(0.1, 0.0) == pytest.approx(1.822923958)  # Abramowitz and Stegun, Table 5.1
    assert mean_inverse_power(0.5, 0.0) == pytest.approx(0.559773595)
    assert mean_inverse_power(0.5, math.inf) == 1.0
    assert mean_inverse_power(0.1, 1e-9) == pytest.approx(
        exp1(0.1), rel=1e-5
    )  # a Rician one that scatters alone
    assert mean_inverse_power(0.1, 1e4) == pytest.approx(1.0, abs=1e-3)  # and one that hardly does


def test_the_weakest_path_sets_the_receive_power_and_nobody_s_mean_power_exceeds_its_own():
    one = link()
    start = RoundStart(1, 0.0)
    assert one.receive_snr(start, requests(0, 1, 2)) == pytest.approx(snr_at(200) / exp1(0.1), rel=1e-6)
    assert one.receive_snr(start, requests(0)) == pytest.approx(snr_at(100) / exp1(0.1), rel=1e-6)
    assert one.receive_snr(start, requests(0)) / link(transmit_dbm=0.0).receive_snr(
        start, requests(0)
    ) == pytest.approx(10)
    many = link(at=NEAR * 3000)
    seconds = np.full(9000, HZ)  # of symbols: each a second of the band
    watts = many.symbol_transfers(start, requests(*range(9000)), seconds).energy_j.reshape(3000, 3)
    expected = 0.01 * snr_at(200) / np.array([snr_at(100), snr_at(200), snr_at(150)])
    assert watts.mean(0) == pytest.approx(expected, rel=0.06)


def test_a_transmission_takes_numbers_over_two_over_the_band_however_many_send():
    one = link(overhead=0.2, latency_s=0.5, fading="none")
    for clients in ((0,), (0, 1), (0, 1, 2)):
        symbols = np.full(len(clients), 500)  # of 1000 numbers
        found = one.symbol_transfers(RoundStart(1, 0.0), requests(*clients), symbols)
        assert found.time_s == pytest.approx(0.5 + 1000 / 2 / (0.8 * HZ))
        assert not found.lost.any()


def filled(updates, weights):
    total = SuperposedSum(updates.shape[1], sum(weights))
    for client, (update, weight) in enumerate(zip(updates, weights, strict=True)):
        total.add(update, weight, client)
    return total


def test_the_mean_has_noise_of_the_loudest_update_over_the_weights_and_the_receive_ratio():
    """Also a client's own, of zeros alone, beside a loud one."""
    n = 200_000
    updates = torch.zeros(3, n)
    updates[1] = 2.0
    weights = [5, 10, 1]
    exact = filled(updates, weights)
    for snr in (100.0, 0.25):
        noise = exact.received(snr, 0, 1).result(1, slice(0, n)) - exact.result(1, slice(0, n))
        assert noise.mean() == pytest.approx(0, abs=4 * 20 / 16 / math.sqrt(snr * n))
        assert noise.std() == pytest.approx(20 / 16 / math.sqrt(snr), rel=0.01)
    nearly = exact.received(1e30, 0, 1).result(1, slice(0, n))
    assert torch.allclose(nearly, exact.result(1, slice(0, n)), rtol=0, atol=1e-13)


def test_noise_is_the_same_wherever_updates_were_added_and_another_in_another_round():
    updates = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    whole = filled(updates, [1, 2])
    parts = [SuperposedSum(1000, 3) for _ in range(2)]
    parts[0].add(updates[1], 2, 1)
    parts[1].add(updates[0], 1, 0)
    rebuild, facts = parts[0].__reduce__()
    merged = rebuild(*facts)
    merged.merge(parts[1])
    assert torch.equal(merged.received(1.0, 0, 1).total, whole.received(1.0, 0, 1).total)
    assert not torch.equal(whole.received(1.0, 0, 2).total, whole.received(1.0, 0, 1).total)


NETWORK = {
    "cell": {"placement": {"kind": "disc", "radius_m": 200.0}},
    "uplink": {"kind": "over_the_air", "threshold": 0.3, "channel": CHANNEL},
    "downlink": {"kind": "log_distance", "bandwidth_hz": 2e7, "allocation": "broadcast"},
    "sidelink": {"kind": "fixed", "rate_bps": 1e9},
    "device": {"kind": "flops", "peak_flops": 1e9, "active_w": 5.0},
    "server": {"kind": "profile", "name": "rtx_4090"},
}
AIR = {"network": NETWORK}


@pytest.fixture(scope="module")
def airborne(tmp_path_factory):
    folder = tmp_path_factory.mktemp("airborne")
    with unevaluated():
        return folder, run(garments(folder, AIR), folder / "run")


def test_a_run_costs_what_was_planned_and_the_silent_are_neither_trained_nor_added(airborne):
    folder, _ = airborne
    timeline = rows(folder / "run" / "timeline.jsonl")
    metrics = rows(folder / "run" / "metrics.jsonl")
    sent = [e for e in timeline if e["direction"] == "uplink"]
    silent = [e for e in sent if e["outcome"] == "lost"]
    assert silent
    assert len(silent) < len(sent)
    assert sum(m["missed"] for m in metrics) == len(silent)
    assert all(e["energy_j"] == 0 for e in silent)
    heard = [e for e in sent if e["outcome"] == "done"]
    assert len({(e["t0_s"], e["t1_s"]) for e in heard}) == len({e["round"] for e in heard})
    assert metrics[-1]["symbols"] == sum(e["symbols"] for e in heard)
    assert metrics[-1]["bytes_uplink"] == 0
    total = plan(checks.check(folder / "garments.yaml"))["total"]
    for name in ("sim_time_s", "energy_j", "symbols"):
        assert total[name] == metrics[-1][name]


def test_who_sends_follows_the_last_that_trained(airborne):
    loaded = checks.check(airborne[0] / "garments.yaml")
    scenario = loaded.scenario
    radio = Radio(scenario.network, scenario.population.clients, scenario.seed)
    schedule = schedule_round(scenario, radio, 1)
    trains = {step.id for step in schedule if step.id.startswith("train")}
    ups = [step for step in schedule if step.id.startswith("up")]
    assert len(ups) == 5
    for step in ups:
        assert set(step.after) == trains
        assert step.after[0] == f"train-{step.client}"
    assert schedule.prune(
        {step.id: "lost" if step.id == "up-0" else "done" for step in schedule}
    ).clients == [1, 2, 3, 4]


def test_the_same_run_on_the_same_network_costs_the_same_again(airborne, tmp_path):
    (there,) = recorded.read([airborne[0] / "run"])
    again = simulate_on_network(there, airborne[0] / "garments.yaml")
    assert again.rows[-1]["energy_j"] == pytest.approx(there.rows[-1]["energy_j"])
    assert again.rows[-1]["sim_time_s"] == pytest.approx(there.rows[-1]["sim_time_s"])


def weights_after_a_round(file):
    executor = SerialExecutor(job_of(file)[1])
    begin(executor)
    scenario = executor.job.scenario
    radio = Radio(scenario.network, scenario.population.clients, scenario.seed)
    schedule = schedule_round(scenario, radio, 1, executor.shared, None, Ledger())
    list(executor.run_round(schedule))
    buffer, layout = executor.global_buffer()
    return layout.view(buffer).clone()


def test_without_fading_and_with_much_power_the_model_is_digital_fedavg_s_and_less_power_moves_it_away(
    tmp_path,
):
    plain = weights_after_a_round(garments(tmp_path, {}))
    distances = []
    for dbm in (200.0, 10.0, -30.0):
        channel = CHANNEL | {"fading": "none", "transmit_dbm": dbm}
        uplink = {"kind": "over_the_air", "channel": channel}
        found = weights_after_a_round(garments(tmp_path, {"network": NETWORK | {"uplink": uplink}}))
        distances.append(float((found - plain).norm() / plain.norm()))
    assert distances[0] < 1e-6
    assert distances[0] < distances[1] < distances[2]


def test_actors_make_the_same_bits_of_it(airborne, tmp_path, cluster):
    with unevaluated():
        result = run(garments(tmp_path, AIR | {"runtime": ONE_ACTOR | {"actors": 2}}), tmp_path / "run")
    assert result["weights_sha256"] == airborne[1]["weights_sha256"]
    assert timeless(rows(tmp_path / "run" / "metrics.jsonl")) == timeless(
        rows(airborne[0] / "run" / "metrics.jsonl")
    )


BAD = {
    "a rule that compares updates": (
        {"aggregation": {"kind": "median"}},
        "aggregation.kind: got median, which compares single updates, beside an uplink over_the_air",
    ),
    "a rule that keeps something of a client": (
        {"aggregation": {"kind": "scaffold"}},
        "aggregation.kind: got scaffold, which keeps and sends",
    ),
    "clusters": (
        {"aggregation": {"kind": "ifca", "clusters": 2}},
        "aggregation.kind: got ifca, which has several global models",
    ),
    "integers": (
        {"aggregation": {"kind": "fedavg", "transforms": [{"kind": "quantize", "bits": 8}]}},
        "aggregation.transforms: got quantize beside an uplink over_the_air",
    ),
    "quality": (
        {"aggregation": {"kind": "fedavg", "weighting": "quality"}},
        "aggregation.weighting: got quality beside",
    ),
    "masks": ({"secure_aggregation": {}}, "secure_aggregation: got one beside an uplink over_the_air"),
    "a ledger": ({"ledger": {}}, "ledger: got one beside an uplink over_the_air"),
    "a relay": ({"topology": {"kind": "relay"}}, "topology.kind: got relay beside an uplink over_the_air"),
    "a split": ({"topology": {"kind": "split", "cut": "auto"}}, "topology.kind: got split beside"),
    "a ring": (
        {"topology": {"kind": "parallel", "reduce": "allreduce"}},
        "topology.kind: got parallel with reduce allreduce beside",
    ),
    "an asynchronous mode": (
        {"topology": {"kind": "parallel", "mode": {"kind": "fedbuff", "concurrency": 2, "buffer": 2}}},
        "topology.kind: got parallel with mode fedbuff beside",
    ),
    "a deadline": (
        {"network": NETWORK | {"deadline_s": 5.0}},
        "network.deadline_s: got 5 beside an uplink over_the_air",
    ),
    "more clients than awaited": (
        {"population": {"clients": 5, "per_round": 3, "over_select": 1}},
        "population.over_select: got 1 beside",
    ),
    "a downlink": (
        {"network": NETWORK | {"downlink": NETWORK["uplink"]}},
        "network.downlink.kind: got over_the_air on a downlink",
    ),
    "a code": (
        {"network": NETWORK | {"uplink": NETWORK["uplink"] | {"channel": CHANNEL | {"harq": 2}}}},
        "network.uplink.channel.harq: got 2, expected none",
    ),
    "a threshold that silences all": (
        {
            "network": NETWORK
            | {"uplink": {"kind": "over_the_air", "threshold": 2.0, "channel": CHANNEL | {"fading": "none"}}}
        },
        "network.uplink.threshold: got 2, expected at most 1",
    ),
}


@pytest.mark.parametrize(("changes", "expected"), BAD.values(), ids=BAD)
def test_what_needs_single_updates_or_bytes_is_refused(tmp_path, changes, expected):
    with pytest.raises(ScenarioError) as refused:
        checks.check(garments(tmp_path, AIR | changes))
    assert expected in str(refused.value)


def test_a_run_of_bytes_is_not_costed_on_a_channel_that_carries_none(tmp_path):
    digital = NETWORK | {"uplink": NETWORK["downlink"] | {"allocation": "equal"}}
    with unevaluated():
        run(garments(tmp_path, {"network": digital, "training.rounds": 1}), tmp_path / "run")
    air = garments(tmp_path, AIR, "air.yaml")
    (before,) = recorded.read([tmp_path / "run"])
    with pytest.raises(ScenarioError, match="over_the_air for a run whose updates went up as bytes"):
        simulate_on_network(before, air)
