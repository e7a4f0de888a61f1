"""A kind of each room from a user's own file beside the scenario: it is checked, planned and run as ours."""

import csv
import json
from itertools import pairwise

import pytest
from safetensors.torch import load_file

from tests.helpers import rows, run
from tests.plugins.users import RATES, network, users_folder

SPLIT = {"kind": "split", "cut": "conv1", "may_send": ["labels"]}
# by room: the kind, where it stands in the scenario, and one of its own options with a value it refuses
ROOMS = {
    "learner": ("model", {"kind": "my_learner:SmallNet", "width": 4}, "width", 0),
    "tuning": ("tuning", {"kind": "my_kinds:Biases", "layers": ["network.7"]}, "layers", 1),
    "rule": ("aggregation", {"kind": "my_kinds:TrimmedMean", "trim": 2}, "trim", -1),
    "hook": (
        "aggregation.transforms.0",
        {"kind": "my_kinds:Scaled", "factor": 0.5},
        "factor",
        "much",
    ),
    "topology": ("topology", {"kind": "my_kinds:OneByOne", "backwards": True}, "backwards", "no"),
    "mode": ("topology.mode", {"kind": "my_kinds:AsTheyAre", "concurrency": 3, "together": 2}, "together", 0),
    "selection": ("population.selection", {"kind": "my_kinds:Last", "skip": 1}, "skip", -1),
    "link": ("network.uplink", {"kind": "my_kinds:RateTable", "rates_bps": RATES}, "rates_bps", 1.0),
    "device": ("network.device", {"kind": "my_kinds:NanoDevice", "nanoseconds": 2.0}, "nanoseconds", 0),
    "evaluation": ("evaluation.measures.0", {"kind": "my_kinds:WeightNorm", "power": 1}, "power", 0),
    "callback": ("runtime.report_to.0", {"kind": "my_kinds:CsvFile", "name": "mine.csv"}, "name", 1),
    "relay_defence": ("topology.defence", {"kind": "my_kinds:Short", "limit": 1e-3}, "limit", 0),
    "defence": ("topology.defence", {"kind": "my_kinds:Rounded", "bits": 1}, "bits", -1),
}


def changes(room, **options):
    """Of the garments, to those with a user's kind; `options` beside the kind's own."""
    kind = ROOMS[room][1] | options
    return {
        "learner": {"model": kind},
        "tuning": {"tuning": kind},
        "rule": {"aggregation": kind},
        "hook": {"aggregation": {"kind": "fedavg", "transforms": [kind]}},
        "topology": {"topology": kind},
        "mode": {"topology": {"kind": "parallel", "mode": kind}, "population": {"clients": 5}},
        "selection": {"population": {"clients": 5, "per_round": 2, "selection": kind}},
        "link": {"network": network(uplink=kind)},
        "device": {"network": network(device=kind)},
        "evaluation": {"evaluation": {"measures": [kind]}},
        "callback": {"runtime": {"executor": "serial", "report_to": [kind]}},
        "relay_defence": {"topology": {"kind": "relay", "defence": kind}},
        "defence": {"topology": SPLIT | {"defence": kind}},
    }[room]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A serial run with a user's kind of a room, made when a test first asks for it; its folder."""
    folders = {}

    def folder(room, **options):
        name = "-".join([room, *map(str, options.values())])
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            run(users_folder(folders[name], changes(room, **options)), folders[name] / "run")
        return folders[name] / "run"

    return folder


def sha(run):
    return json.loads((run / "result.json").read_text())["weights_sha256"]


def times(run, *events):
    """Simulated seconds of the first round's steps of these kinds, by client."""
    steps = [row for row in rows(run / "timeline.jsonl") if row["round"] == 1 and row["event"] in events]
    return {row["node"]: (row["t1_s"] - row["t0_s"], row["bytes"], row["flops"]) for row in steps}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """The weights of a run of our own kinds alone, by its changes."""

    known = {}

    def weights(changes):
        if str(changes) not in known:
            where = tmp_path_factory.mktemp("ours")
            known[str(changes)] = run(users_folder(where, changes), where / "run")["weights_sha256"]
        return known[str(changes)]

    return weights


@pytest.mark.parametrize("room", ROOMS)
def test_check_and_plan_take_a_users_kind(room, fedray, tmp_path):
    file = users_folder(tmp_path / "home", changes(room))
    assert fedray("check", file) == (0, f"{file}: garments OK\n", "")
    code, planned, err = fedray("plan", file, "--json")
    assert (code, err) == (0, "")
    assert json.loads(planned)["total"]["sim_time_s"] > 0


@pytest.mark.parametrize("room", ROOMS)
def test_an_option_that_the_users_section_refuses_has_its_file_and_line(room, fedray, tmp_path):
    key, _, option, value = ROOMS[room]
    file = users_folder(tmp_path / "home", changes(room, **{option: value}))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if f" {option}:" in text)
    code, out, err = fedray("check", file)
    assert (code, out) == (2, "")
    assert err.startswith(f"{file}:{line}: {key}.{option}: got {value!r}, expected ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("room", ROOMS)
def test_an_option_that_is_none_of_the_users_section_is_told_with_the_nearest(room, fedray, tmp_path):
    key, _, option, _ = ROOMS[room]
    file = users_folder(tmp_path / "home", changes(room, **{f"{option}x": 1}))
    code, _, err = fedray("check", file)
    assert code == 2
    assert f": {key}.{option}x: got an unknown key, expected {option} (did you mean it?)\n" in err


def test_a_users_learner_trains_is_measured_and_saves_its_own_files(ran):
    out = ran("learner")
    first, last = rows(out / "metrics.jsonl")
    assert last["loss"] < first["loss"]
    assert last["eval_loss"] > 0
    weights = load_file(out / "model" / "model.safetensors")
    assert {name: tuple(t.shape) for name, t in weights.items()} == {
        "first.weight": (4, 784),
        "first.bias": (4,),
        "last.weight": (10, 4),
        "last.bias": (10,),
    }


def test_a_users_tuning_chooses_what_travels(ran):
    assert rows(ran("tuning") / "metrics.jsonl")[0]["bytes_uplink"] == 5 * 128 * 4  # the dense layer's biases


def test_a_users_tuning_that_trains_nothing_is_refused_with_its_line(fedray, tmp_path):
    file = users_folder(tmp_path / "home", changes("tuning", layers=["network.8"]))
    code, _, err = fedray("plan", file)
    assert code == 2
    assert ": tuning.kind: got my_kinds:Biases, which trains no weight of this model, expected " in err


def test_a_users_rule_sees_every_update(ran, ours):
    """Without the two smallest and the two largest of five, what is left is the median."""
    assert sha(ran("rule")) == ours({"aggregation": {"kind": "median"}})


def test_a_users_mode_says_what_stale_updates_count(ran, ours):
    mode = {"kind": "fedbuff", "concurrency": 3, "buffer": 2, "staleness": {"kind": "constant"}}
    as_ours = {"topology": {"kind": "parallel", "mode": mode}, "population": {"clients": 5}}
    assert sha(ran("mode")) == ours(as_ours)


def test_a_users_hook_changes_what_clients_send(ran, ours):
    assert sha(ran("hook", factor=1.0)) == ours({})
    assert sha(ran("hook")) != ours({})


def test_a_users_topology_says_who_waits_for_whom(ran):
    steps = [row for row in rows(ran("topology") / "timeline.jsonl") if row["round"] == 1]
    ups = [row for row in steps if row["id"].startswith("up-")]
    assert [row["id"] for row in ups] == [f"up-{k}" for k in (4, 3, 2, 1, 0)]
    assert all(later["t0_s"] >= earlier["t1_s"] for earlier, later in pairwise(ups))


def test_a_users_selection_says_who_takes_part(ran):
    trained = [(row["round"], row["client"]) for row in rows(ran("selection") / "clients.jsonl")]
    assert trained == [(1, 2), (1, 3), (2, 2), (2, 3)]


def test_a_users_link_says_how_long_a_transfer_takes(ran):
    took = times(ran("link"), "uplink", "send")
    seen = {node: nbytes * 8 / s for node, (s, nbytes, _) in took.items() if node != "server"}
    assert seen == pytest.approx({f"client-{k}": rate for k, rate in enumerate(RATES)})


def test_a_users_device_says_how_long_training_takes(ran):
    took = times(ran("device"), "train")
    assert took
    assert all(s == pytest.approx(2e-9 * flops) for s, _, flops in took.values())


def test_a_users_evaluation_is_beside_the_learners_own(ran):
    last = rows(ran("evaluation") / "metrics.jsonl")[-1]
    assert last["eval_norm"] > 0
    assert last["eval_accuracy"] > 0


def test_a_users_callback_is_called_each_round(ran):
    out = ran("callback")
    with (out / "mine.csv").open() as f:
        written = [(int(number), float(loss)) for number, loss in csv.reader(f)]
    assert written == [(row["round"], row["loss"]) for row in rows(out / "metrics.jsonl")]


def test_a_users_defence_changes_what_the_server_sees(ran, ours):
    fine, coarse, none = ran("defence", bits=80), ran("defence"), ours({"topology": SPLIT})
    assert sha(fine) == none
    assert sha(coarse) != none


def test_a_users_relay_defence_says_what_a_receiver_goes_on_with(ran, ours):
    assert sha(ran("relay_defence", limit=1e3)) == ours({"topology": {"kind": "relay"}})
    strict = rows(ran("relay_defence") / "metrics.jsonl")
    assert [row["rejected"] for row in strict] == [5, 5]
