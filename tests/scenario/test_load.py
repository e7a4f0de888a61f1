import copy
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from fedray import shipped
from fedray.checks import check
from fedray.scenario import ScenarioError, load
from tests.helpers import garments, tiny, write

QUICKSTART = shipped.scenarios()["quickstart"]


def problems(file, settings=(), seed=None):
    with pytest.raises(ScenarioError) as caught:
        check(file, settings, seed)
    return caught.value.problems


def said(file, settings=()):
    """What is wrong with a scenario, whole or not."""
    try:
        check(file, settings)
        return None
    except ScenarioError as e:
        return e.problems


def line_of(file, text):
    (number,) = [i for i, line in enumerate(file.read_text().splitlines(), 1) if text in line]
    return number


# ruff: noqa: E501 (a table)
BAD_VALUES = {
    # what a user may write: (section, key and value in its place, how the line goes on)
    "an unknown key with a suggestion": ("training", ("learning_rat", 1), "training.learning_rat: got an unknown key, expected "),
    "a wrong type": ("training", ("rounds", "many"), "training.rounds: got 'many', expected an integer"),
    "a number that is not whole": ("training", ("rounds", 2.5), "training.rounds: got 2.5, expected an integer"),
    "a boolean for a number": ("training", ("rounds", True), "training.rounds: got True, expected an integer"),
    "zero clients": ("population", ("clients", 0), "population.clients: got 0, expected at least 1"),
    "a rate of zero": ("network.uplink", ("rate_bps", 0), "network.uplink.rate_bps: got 0, expected a number above 0"),
    "a negative rate": ("network.sidelink", ("rate_bps", -1e6), "network.sidelink.rate_bps: got -1000000.0, expected a number above 0"),
    "a rate without end": ("network.downlink", ("rate_bps", float("inf")), "network.downlink.rate_bps: got inf, expected a finite number"),
    "a learning rate that is a word": ("training.optimizer", ("learning_rate", "fast"), "training.optimizer.learning_rate: got 'fast', expected a number"),
    "a learning rate that is not a number": ("training.optimizer", ("learning_rate", float("nan")), "training.optimizer.learning_rate: got nan, expected "),
    "a negative learning rate": ("training.optimizer", ("learning_rate", -0.1), "training.optimizer.learning_rate: got -0.1, expected a number above 0"),
    "an unknown kind": ("topology", ("kind", "ring"), "topology.kind: got 'ring', expected 'relay' or 'parallel'"),
    "another section's kind": ("tuning", ("kind", "adamw"), "tuning.kind: got 'adamw', expected 'lora' or 'full' or 'partial'"),
    "another precision": ("training", ("precision", "fp8"), "training.precision: got 'fp8', expected 'fp32', 'fp16' or 'bf16'"),
    "more clients a round than there are": ("population", ("per_round", 6), "population.per_round: got 6, expected at most population.clients, 5"),
    "more chains than clients": ("topology", ("chains", 6), "topology.chains: got 6, expected at most the clients of a round, 5"),
    "an order without rates": ("topology", ("order", "best_sidelink"), "network.sidelink.rate_bps: got one rate for all, expected a table of rates"),
    "a base that is not there": ("model", ("base", "tiny-sb"), "model.base: got 'tiny-sb', which is not there, expected a shipped model (tiny-sd, tiny-sd2)"),
    "data that are not there": ("data", ("path", "nowhere"), "data.path: got 'nowhere', expected a folder of images"),
    "shipped data that do not ship": ("data", ("path", "shipped:oil"), "data.path: got 'shipped:oil', expected one of "),
    "a judge that is not there": ("evaluation.reference", ("judge", "x"), "evaluation.reference.judge: got 'x', expected a safetensors file of a judge"),
    "more folders than clients": ("population", ("clients", 4), "population.clients: got 4 for 5 folders ('artist-1', "),
    "fewer folders than clients": ("population", ("clients", 6), "population.clients: got 6 for 5 folders ('artist-1', "),
    "steps and epochs": ("training", ("local_epochs", 1), "training: got both of local_steps and local_epochs, expected one of them"),
    "rates of other clients": ("network.uplink", ("rate_bps", [1e6, 2e6]), "network.uplink.rate_bps: got 2 rates, expected one for each of the 5 clients"),
    "a table for an uplink": ("network.uplink", ("rate_bps", [[1e6]]), "network.uplink.rate_bps: got a table, expected one rate, or a list of one a client"),
    "a judge at another size": ("model", ("resolution", 64), "evaluation.reference.judge: got shipped:garments at 64 pixels"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_VALUES)
def test_bad_input_is_one_line_with_file_line_and_key(what, tmp_path):
    section, (key, value), line = BAD_VALUES[what]
    changes = {f"{section}.{key}": value} | ({"population.per_round": None} if key == "clients" else {})
    file = write(tmp_path / "mine.yaml", changes)
    found = problems(file)
    assert len(found) == 1, found
    where, number, message = re.fullmatch(r"(.*?):(\d+): (.*)", found[0]).groups()
    assert where == str(file)
    assert message.startswith(line), message
    named = message.split(":")[0].split(".")
    lines = file.read_text().splitlines()
    shown = lines[int(number) - 1]
    assert re.search(rf"\b{named[-1]}:", shown), f"{message} shows {shown!r}"


PARALLEL = {"topology": {"kind": "parallel"}}
TOP_K, CLIP, EIGHT = (
    {"kind": "top_k", "fraction": 0.1},
    {"kind": "clip", "norm": 1.0},
    {"kind": "quantize", "bits": 8},
)
OLD_WORD = {"kind": "quantise", "bits": 8}
SPLIT = {"kind": "split", "cut": "auto", "may_send": ["labels"]}
TOGETHER = {  # the quickstart, or garments, changed in more places than one: what is said
    "control variates along a relay": (tiny, {"aggregation": {"kind": "scaffold"}, "training.optimizer": {"kind": "sgd", "learning_rate": 0.1}}, "aggregation.kind: got scaffold, expected topology.kind parallel"),
    "control variates with momentum": (garments, {"aggregation": {"kind": "scaffold"}, "training.optimizer.momentum": 0.9}, "training.optimizer: got sgd for scaffold, expected sgd without momentum"),
    "a thinned out relay": (tiny, {"aggregation": {"kind": "fedavg", "transforms": [TOP_K]}}, "aggregation.transforms: got top_k, expected none in a relay"),
    "a ring of sparse numbers": (garments, {"topology.reduce": "allreduce", "aggregation": {"kind": "fedavg", "transforms": [CLIP, TOP_K]}}, "aggregation.transforms: got clip, top_k, expected clip alone"),
    "quantized before it is thinned out": (garments, {"aggregation": {"kind": "fedavg", "transforms": [EIGHT, TOP_K]}}, "aggregation.transforms: got quantize, top_k, expected at most one each of clip"),
    "two ways to thin out": (garments, {"aggregation": {"kind": "fedavg", "transforms": [TOP_K, {"kind": "random_k", "fraction": 0.1}]}}, "aggregation.transforms: got top_k, random_k"),
    "adapters' rule without adapters": (garments, {"aggregation": {"kind": "flora"}}, "aggregation.kind: got flora with tuning full, expected tuning.kind lora"),
    "stacking along a relay": (tiny, {"aggregation": {"kind": "flora"}}, "aggregation.kind: got flora, expected topology.kind parallel"),
    "an adapter for a classifier": (garments, {"tuning": {"kind": "lora", "rank": 2}}, "tuning.kind: got lora, expected full or partial for classifier"),
    "prompts for a classifier": (garments, {"evaluation.prompts": ["a shoe"]}, "evaluation.prompts: got some for a classifier"),
    "a negative prompt for a diffusion": (garments, {"model": {"kind": "diffusion"}, "evaluation.negative_prompt": "blur"}, "evaluation.negative_prompt: got 'blur' for a diffusion, expected none, or text_to_image"),
    "pictures of a classifier": (garments, {"evaluation.quality": {"images": 50}}, "evaluation.quality: got some for a classifier"),
    "a rank above the rank": (tiny, PARALLEL | {"tuning.rank": 4, "tuning.ranks": [2, 8]}, "tuning.ranks: got 8, expected at most tuning.rank, 4"),
    "more ranks than clients": (tiny, PARALLEL | {"tuning.ranks": [1] * 6}, "tuning.ranks: got 6 ranks, expected at most one a client, 5"),
    "ranks along a relay": (tiny, {"tuning.ranks": [1, 2]}, "tuning.ranks: got some, expected topology.kind parallel"),
    "ranks for momentum": (tiny, PARALLEL | {"tuning.ranks": [1, 2], "aggregation": {"kind": "fedavgm"}}, "tuning.ranks: got some for fedavgm"),
    "an alpha of zero": (garments, {"data.partition": {"kind": "dirichlet", "alpha": 0.0}}, "data.partition.alpha: got 0.0, expected a number above 0"),
    "clients without samples": (garments, {"population.clients": 100, "data.partition": {"kind": "dirichlet", "alpha": 0.01}}, "data.partition"),
    "more shards than samples": (garments, {"population.clients": 2000, "data.partition": {"kind": "shards"}}, "population.clients: got 4000 parts of 2500 samples"),
}  # fmt: skip


@pytest.mark.parametrize("what", TOGETHER)
def test_answers_that_do_not_go_together_are_one_line_with_its_number(what, tmp_path):
    make, changes, line = TOGETHER[what]
    file = make(tmp_path, changes)
    found = problems(file)
    assert len(found) == 1, found
    where, _, message = re.fullmatch(r"(.*?):(\d+): (.*)", found[0]).groups()
    assert where == str(file)
    assert message.startswith(line), message


def test_an_unknown_key_comes_with_the_nearest_known_one(tmp_path):
    (found,) = problems(write(tmp_path / "mine.yaml", {"training.batchsize": 4}))
    assert found.endswith("training.batchsize: got an unknown key, expected batch_size (did you mean it?)")
    (found,) = problems(write(tmp_path / "mine.yaml", {"training.optimizer.learning_rates": 4}))
    assert found.endswith("expected learning_rate (did you mean it?)")
    (found,) = problems(write(tmp_path / "mine.yaml", {"tuning.rnk": 4}))
    assert found.endswith("tuning.rnk: got an unknown key, expected rank (did you mean it?)")
    (found,) = problems(write(tmp_path / "mine.yaml", {"topolgy": {}}))
    assert found.endswith("topolgy: got an unknown key, expected topology (did you mean it?)")
    (found,) = problems(write(tmp_path / "mine.yaml", {"runtime.xyzzy": 4}))
    assert "expected one of executor, actors" in found


def test_a_missing_section_or_key_is_named(tmp_path):
    assert any(
        p.endswith("network: got nothing, expected this key")
        for p in problems(write(tmp_path / "mine.yaml", {"network": None}))
    )
    assert any(
        p.endswith("training.rounds: got nothing, expected this key")
        for p in problems(write(tmp_path / "mine.yaml", {"training.rounds": None}))
    )
    assert any(
        "got neither of local_steps and local_epochs" in p
        for p in problems(write(tmp_path / "mine.yaml", {"training.local_steps": None}))
    )


def test_every_error_is_said_at_once_each_with_its_line(tmp_path):
    changes = {
        "training.rounds": "many",
        "population.clients": 0,
        "network.uplink.rate_bps": -1,
        "modle": {},
        "tuning.rank": 0.5,
    }
    file = write(tmp_path / "mine.yaml", changes)
    found = problems(file)
    assert len(found) == 5
    assert (
        f"{file}:{line_of(file, 'rounds: many')}: training.rounds: got 'many', expected an integer" in found
    )
    assert len({p.split(": ")[0] for p in found}) == 5


def test_files_that_are_missing_are_said_at_once_too(tmp_path):
    changes = {
        "data.path": "nowhere",
        "model.base": "nothing",
        "evaluation.reference": {"path": "no", "judge": "none"},
    }
    assert [p.split(": ")[1] for p in problems(write(tmp_path / "mine.yaml", changes))] == [
        "data.path", "model.base", "evaluation.reference.path", "evaluation.reference.judge"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: [a\ndata: 1\n", None),
        ("a: 1\nb: {c: 1\n", None),
        ("a: 1\na: 2\n", 2),
        ("a: 1\n  b: 2\n", 2),
        ("a: *nothing\n", 1),
        ("- a\n- b\n", 1),
        ("just words\n", 1),
        ("", 1),
        ("a: 1\n---\nb: 2\n", None),
        ("a: \x00\n", 1),
        ("a: &x [*x]\n", None),
        ("seed: !!python/object:os.system {}\n", None),
        ("? [1, 2]\n: 3\n", None),
        ("a: !!binary x\n", None),
        ("<<: 3\n", None),
        ("seed: " + "9" * 6000 + "\n", None),
        ("seed: 0x" + "f" * 6000 + "\n", None),
        ("[" * 400, None),
        (QUICKSTART.read_text().replace("seed: 0", "seed: &x [*x]"), 6),
        (QUICKSTART.read_text().replace("seed: 0", "seed: &x {a: *x}"), 6),
    ],
)
def test_text_that_is_no_scenario_is_a_line_with_its_place(text, line, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    found = problems(file)
    assert all(re.match(rf"{re.escape(str(file))}:\d+: ", p) for p in found), found
    if line is not None:
        assert found[0].startswith(f"{file}:{line}: "), found


def test_a_file_that_is_not_text_is_refused(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_bytes(b"\xff\xfe\x00name: caf\xe9\n")
    (found,) = problems(file)
    assert found.startswith(f"{file}: got ")


def test_a_setting_takes_the_place_of_a_key(tmp_path):
    settings = [
        "training.rounds=7",
        "evaluation.prompts=[a, b]",
        "network.uplink={kind: fixed, rate_bps: 5}",
        "runtime.failures.data=drop",
    ]
    scenario = check(QUICKSTART, settings, seed=5).scenario
    assert scenario.training.rounds == 7
    assert scenario.evaluation.prompts == ["a", "b"]
    assert scenario.seed == 5
    assert scenario.network.uplink.rate_bps == 5
    assert scenario.network.uplink.latency_s == 0
    assert scenario.runtime.failures.data == "drop"
    assert check(QUICKSTART, ["evaluation.prompts.1=changed"]).scenario.evaluation.prompts[1] == "changed"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (
            "training.round=3",
            "--set training.round=3: training.round: got an unknown key, expected rounds (did you mean it?)",
        ),
        (
            "trainin.rounds=3",
            "--set trainin.rounds=3: trainin: got an unknown key, expected training (did you mean it?)",
        ),
        ("training.rounds=x", "--set training.rounds=x: training.rounds: got 'x', expected an integer"),
        ("training.rounds", "--set training.rounds: got 'training.rounds', expected section.key=value"),
        ("=3", "--set =3: got '=3', expected section.key=value"),
        ("a..b=3", "--set a..b=3: got 'a..b=3', expected section.key=value"),
        ("training.rounds=[1", "--set training.rounds:1: got "),
        ("evaluation.prompts.9=x", "--set evaluation.prompts.9: got '9', expected an index below 4"),
        ("population.clients=4", "--set population.clients=4: population.clients: got 4 for 5 folders"),
        (
            "population.per_round=9",
            "--set population.per_round=9: population.per_round: got 9, expected at most",
        ),
    ],
)
def test_a_bad_setting_is_named_in_its_lines(setting, expected):
    extra = ["population.per_round=4"] if setting == "population.clients=4" else []
    found = problems(QUICKSTART, [setting, *extra])
    assert [p[: len(expected)] for p in found] == [expected]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"aggregation": {"kind": "fedavg", "transforms": [OLD_WORD]}}, "aggregation.transforms.0.kind"),
        ({"topology": SPLIT | {"compression": [TOP_K, OLD_WORD]}}, "topology.compression.1.kind"),
    ],
)
def test_a_kind_that_had_another_name_is_refused_with_its_new_one(changes, key, tmp_path):
    file = garments(tmp_path, changes)
    (found,) = problems(file)
    line = line_of(file, "quantise")
    assert found == f"{file}:{line}: {key}: got quantise, expected quantize (its name since 0.2)"


def test_an_old_name_of_another_section_is_an_unknown_kind(tmp_path):
    (found,) = problems(garments(tmp_path, {"topology": {"kind": "quantise"}}))
    assert "topology.kind: got 'quantise', expected 'relay' or " in found


def test_a_setting_under_a_value_says_so():
    found = problems(QUICKSTART, ["name.first=x"])
    assert [p[:16] for p in found] == ["--set name.first"]


def test_defaults_are_spelled_out_and_paths_absolute_in_the_resolved_form(tmp_path):
    loaded = check(tiny(tmp_path))
    file = tmp_path / "elsewhere" / "resolved.yaml"
    file.parent.mkdir()
    file.write_text(loaded.resolved())
    again = check(file)
    assert again.scenario == loaded.scenario
    assert again.resolved() == loaded.resolved()
    assert "checkpoint_every: 1" in loaded.resolved()
    assert "clip_norm: auto" in loaded.resolved()


@pytest.mark.parametrize("name", shipped.scenarios())
def test_every_shipped_scenario_is_whole(name):
    assert check(shipped.scenarios()[name]).scenario.name == name


def test_reading_a_scenario_changes_nothing_of_it():
    scenario = load(QUICKSTART).scenario
    with pytest.raises(ValueError, match="frozen"):
        scenario.training.rounds = 3


@pytest.mark.parametrize(
    ("sites", "changes", "said_"),
    [
        (
            {"a": {"folders": ["x"]}},
            {},
            "population.clients: got 5 for 1 folders of data.sites, expected 1, one a folder",
        ),
        (
            {"a": {"folders": list("abcde")}},
            {"runtime": {"executor": "serial"}},
            "runtime.executor: got 'serial', expected ray",
        ),
        (
            {"a": {"folders": list("abcde")}},
            {"data.partition.kind": "iid"},
            "data.partition: got iid, expected folder",
        ),
        (
            {"a": {"folders": ["..", *"abcd"]}},
            {},
            "data.sites.a.folders.0: got '..', expected the name of one folder",
        ),
        (
            {"a": {"folders": ["../../etc", *"abcd"]}},
            {},
            "data.sites.a.folders.0: got '../../etc', expected ",
        ),
        (
            {"a b": {"folders": list("abcde")}},
            {},
            "data.sites.a b: got 'a b', expected a name of letters, digits, dots",
        ),
        ({"a": {"folders": []}}, {}, "data.sites.a.folders: got 0 of them, expected at least 1"),
        ({}, {}, "data.sites: got 0 of them, expected at least 1"),
    ],
)
def test_sites_that_cannot_be_are_a_line(sites, changes, said_, tmp_path):
    found = problems(tiny(tmp_path, {"runtime": {"executor": "ray"}, "data.sites": sites} | changes))
    assert len(found) == 1, found
    assert said_ in found[0].replace("got serial", "got 'serial'"), found


def test_clients_are_numbered_in_the_sites_order(tmp_path):
    sites = {"b": {"folders": ["z", "a"]}, "a": {"folders": ["c", "d", "e"]}}
    scenario = check(tiny(tmp_path, {"runtime": {"executor": "ray"}, "data.sites": sites})).scenario
    assert scenario.sites == {"b": [0, 1], "a": [2, 3, 4]}


# -- mutations

WORDS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**6), st.floats(), st.text(string.printable, max_size=8),
    st.sampled_from(["lora", "full", "partial", "fixed", "adamw", "sgd", "folder", "iid", "shipped:ink", "shipped:", "..", "tiny-sd", "a/b", "fashion_mnist_mini"]),
    st.lists(st.one_of(st.integers(-1, 5), st.floats(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.sampled_from(["kind", "path", "rank", "rate_bps", "x"]), st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=3),
)  # fmt: skip


def places(tree, path=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


PLAIN = YAML(typ="safe", pure=True).load(QUICKSTART.read_text())
PLACES = list(places(PLAIN))


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(["replace", "remove", "add"]), WORDS),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_is_changed_a_scenario_is_whole_or_refused_in_lines(tmp_path, changes):
    tree = copy.deepcopy(PLAIN)
    for place, how, value in changes:
        at = tree
        try:
            for key in place[:-1]:
                at = at[key]
            if how == "replace":
                at[place[-1]] = value
            elif how == "remove":
                del at[place[-1]]
            elif isinstance(at, dict):
                at[str(value)] = value
        except (KeyError, IndexError, TypeError):
            continue
    file = tmp_path / "mutated.yaml"
    with file.open("w") as f:
        YAML(typ="safe", pure=True).dump(tree, f)
    found = said(file)
    assert found is None or found
    assert all(re.match(rf"{re.escape(str(file))}:\d+: ", p) for p in found or ()), found


@settings(max_examples=50)
@given(
    st.integers(0, 1400),
    st.integers(0, 6),
    st.lists(
        st.sampled_from([*"{}[]:,#&*!|>'\"%@`-?\t\n 0a", "é", "\x07", "&a ", "*a", "!!", "- ", "<<: "]),
        max_size=4,
    ).map("".join),
)
def test_whatever_text_is_typed_over_a_scenario_is_whole_or_refused_in_lines(tmp_path, at, cut, typed):
    text = QUICKSTART.read_text()
    file = tmp_path / "typed.yaml"
    file.write_text(text[:at] + typed + text[at + cut :])
    found = said(file)
    assert all(re.match(rf"{re.escape(str(file))}(:\d+)?: ", p) for p in found or ()), found


@settings(max_examples=50)
@given(
    st.lists(
        st.sampled_from(
            ["a", "training", "rounds", "evaluation", "prompts", "0", "network", "uplink", "kind", "", " "]
        ),
        max_size=4,
    ),
    st.text(max_size=6),
)
def test_whatever_is_set_is_taken_or_refused_in_lines(keys, value):
    found = said(QUICKSTART, [".".join(keys) + "=" + value])
    assert found is None or found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"aggregation": {"kind": "scaffold", "weighting": "samples"}, "population": {"clients": 5, "per_round": 2}}, "aggregation.weighting:"),
        ({"model": {"kind": "diffusion", "channels": [32, 64], "attention": [2]}}, "model.attention: got [2], expected levels below 2"),
        ({"model": {"kind": "diffusion", "beta_start": 0.5}}, "model.beta_start: got 0.5, expected at most model.beta_end, 0.02"),
        ({"model": {"kind": "diffusion", "beta_end": 2.0}}, "model.beta_end: got 2.0, expected a number below 1"),
        ({"training.optimizer": "sgd"}, "training.optimizer: got 'sgd', expected a section of keys"),
    ],
)  # fmt: skip
def test_what_would_make_no_sense_is_refused(changes, expected, tmp_path):
    with pytest.raises(ScenarioError) as error:
        load(garments(tmp_path, {"training.optimizer": {"kind": "sgd", "learning_rate": 0.1}} | changes))
    assert any(expected in problem for problem in error.value.problems), error.value.problems


@pytest.mark.parametrize("name", sorted(shipped.scenarios()))
def test_what_a_run_goes_on_from_loads_as_what_it_began_with(name, tmp_path):
    """Also a sweep's variants, each of which is a run of its own: the first and the last."""
    loaded = load(shipped.scenarios()[name])
    variants = list(loaded.variants.values())
    for variant in (loaded, *variants[:1], *variants[1:][-1:]):
        (tmp_path / "resolved.yaml").write_text(variant.resolved())
        assert load(tmp_path / "resolved.yaml").resolved() == variant.resolved()


def test_a_default_that_is_written_out_is_still_a_default(tmp_path):
    model = {"kind": "diffusion", "channels": [32, 32], "layers": 1, "resolution": 16}
    topology = {
        "kind": "split",
        "cut": "conv1",
        "tail": "loss",
        "compression": [{"kind": "top_k", "fraction": 0.1}],
    }
    for changes in ({"model": model}, {"topology": topology}):
        (tmp_path / "resolved.yaml").write_text(load(garments(tmp_path, changes)).resolved())
        load(tmp_path / "resolved.yaml")
