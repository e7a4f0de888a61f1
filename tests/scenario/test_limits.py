"""Files, values and paths that no scenario needs: refused at once, in lines, before anything is built of them."""

import os
import re
import time

import pytest

from fedray import shipped
from fedray.checks import check
from fedray.data import places
from fedray.scenario import ScenarioError
from tests.helpers import garments, tiny, write

QUICKSTART = shipped.scenarios()["quickstart"].read_text()
AT_ONCE_S = 20  # on a machine that others use too


def refused(file, settings=()):
    began = time.monotonic()
    with pytest.raises(ScenarioError) as caught:
        check(file, settings)
    assert time.monotonic() - began < AT_ONCE_S
    return str(caught.value).split("\n")


def typed(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return file


def number(text, line):
    """Of the line that begins so."""
    return next(i for i, one in enumerate(text.split("\n"), 1) if one.strip().startswith(line))


NO_RULE = QUICKSTART.replace("aggregation: {kind: fedavg}\n", "")
KINDS = {  # a text after the quickstart's, the line that is named, and what is said
    "a kind in a list": (
        "aggregation:\n  kind: fedavg\n  transforms:\n    - kind: clip\n      norm: 1\n    - fraction: 0.1\n      kind: topk\n",
        "kind: topk",
        "aggregation.transforms.1.kind: got 'topk', expected 'clip' or 'top_k'",
    ),
    "an unknown key in a list": (
        "aggregation:\n  kind: fedavg\n  transforms:\n    - kind: top_k\n      fraction: 0.1\n      feedback: true\n",
        "feedback: true",
        "aggregation.transforms.0.feedback: got an unknown key, expected error_feedback (did you mean it?)",
    ),
    "a misspelt key kind": (
        "aggregation:\n  weighting: samples\n  knd: fedavg\n",
        "knd: fedavg",
        "aggregation.knd: got an unknown key, expected kind (did you mean it?)",
    ),
    "a misspelt key kind in a list": (
        "aggregation:\n  kind: fedavg\n  transforms:\n    - norm: 1\n      Kind: clip\n",
        "Kind: clip",
        "aggregation.transforms.0.Kind: got an unknown key, expected kind (did you mean it?)",
    ),
    "a kind without a name": (
        "aggregation:\n  weighting: samples\n  kind:\n",
        "kind:",
        "aggregation.kind: got nothing, expected 'fedavg' or",
    ),
}


@pytest.mark.parametrize("what", KINDS)
def test_a_misspelt_kind_or_key_names_its_own_line_also_in_lists(what, tmp_path):
    more, line, said = KINDS[what]
    text = NO_RULE + more
    (found,) = refused(typed(tmp_path, text))
    at = len(NO_RULE.split("\n")) - 1 + number(more, line)
    assert found.startswith(f"{tmp_path}/mine.yaml:{at}: {said}"), found


def test_a_misspelt_kind_deep_in_a_mix_of_devices_names_its_own_line(tmp_path):
    mix = "  device:\n    kind: mix\n    of:\n      - share: 1\n        device: {kind: flops, peak_flops: 1, active_w: 1}\n"
    mix += "      - share: 1\n        device:\n          peak_flops: 1\n          kind: flop\n"
    text = re.sub(r"  device:.*\n", mix, QUICKSTART)
    (found,) = refused(typed(tmp_path, text))
    line = 1 + text.split("\n").index("          kind: flop")
    assert found.startswith(
        f"{tmp_path}/mine.yaml:{line}: network.device.of.1.device.kind: got 'flop', expected 'flops' or 'cpu'"
    ), found
    (found,) = refused(
        typed(
            tmp_path,
            text.replace("kind: flop\n", "kind: flops\n          active_w: 1\n          actve_w: 1\n"),
        )
    )
    assert found.endswith(
        "network.device.of.1.device.actve_w: got an unknown key, expected active_w (did you mean it?)"
    ), found


def test_a_key_that_no_site_has_comes_with_those_it_may_have(tmp_path):
    changes = {"runtime": {"executor": "ray"}, "data.sites": {"a": {"folders": list("abcde"), "foldrs": 1}}}
    (found,) = refused(tiny(tmp_path, changes))
    assert found.endswith("data.sites.a.foldrs: got an unknown key, expected folders (did you mean it?)")


def test_of_twenty_thousand_unknown_keys_fifty_are_named_and_the_others_counted(tmp_path):
    found = refused(typed(tmp_path, QUICKSTART + "".join(f"key{i}: 1\n" for i in range(20_000))))
    assert len(found) == 51
    assert all("got an unknown key" in line for line in found[:50])
    assert found[50] == "and 19950 more"


def test_a_sweep_of_many_faults_is_fifty_lines_and_a_count_too(tmp_path):
    variants = {f"v{i}": {"training.rounds": 0} for i in range(80)}
    found = refused(write(tmp_path / "mine.yaml", {"sweep": {"variants": variants}}))
    assert (len(found), found[50]) == (51, "and 30 more")
    (found,) = refused(
        write(tmp_path / "mine.yaml", {"sweep": {"variants": {f"v{i}": {} for i in range(1001)}}})
    )
    assert "sweep.variants: got 1001 of them, expected at most 1000" in found


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("x: &a [*a]\n", "x:"),
        ("x: &a\n  y: *a\n", "x:"),
        ("x: &a {<<: *a}\n", "x:"),
        ("x:\n  - &a [1, {z: [*a]}]\n", "- &a"),
    ],
)
def test_a_value_that_contains_itself_is_refused_with_its_line(more, line, tmp_path):
    (found,) = refused(typed(tmp_path, QUICKSTART + more))
    at = len(QUICKSTART.split("\n")) - 1 + number(more, line)
    assert found == f"{tmp_path}/mine.yaml:{at}: got a value that contains itself, expected one that ends"


def test_a_document_that_contains_itself_is_refused(tmp_path):
    (found,) = refused(typed(tmp_path, f"&all\n{QUICKSTART}sweep: *all\n"))
    assert "got a value that contains itself" in found


def test_aliases_of_aliases_are_counted_before_they_are_copied(tmp_path):
    bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))
    (found,) = refused(typed(tmp_path, QUICKSTART + bomb))
    assert re.search(r"got [\d,]+ values with aliases written out, expected at most 200,000$", found)
    (found,) = refused(
        shipped.scenarios()["quickstart"],
        ["description=" + bomb.replace("\n", ", ").replace("a0:", "{a0:", 1) + "}"],
    )
    assert "values with aliases written out" in found


def test_a_chain_of_aliases_deeper_than_python_goes_is_refused(tmp_path):
    chain = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))
    (found,) = refused(typed(tmp_path, chain))
    assert found.endswith("got more than 100 levels, expected fewer, one in another")


def test_an_alias_that_is_used_twice_is_written_out(tmp_path):
    text = QUICKSTART.replace("uplink: {", "uplink: &up {", 1)
    text = re.sub(r"  downlink: .*\n", "  downlink: *up\n", text)
    network = check(typed(tmp_path, text)).scenario.network
    assert network.downlink == network.uplink


def test_a_file_over_a_megabyte_is_refused_before_it_is_read(tmp_path):
    (found,) = refused(typed(tmp_path, QUICKSTART + "#" * 1_000_000))
    assert (
        found
        == f"{tmp_path}/mine.yaml: got {len(QUICKSTART) + 1_000_000:,} bytes, expected a scenario of at most 1,000,000"
    )


# ruff: noqa: E501 (a table)
COUNTS = {
    "a thousand million clients": ({"population": {"clients": 10**9, "per_round": 5}}, "population.clients: got 1000000000, expected at most 1000000"),
    "more samples than fit": (
        {"population": {"clients": 10**6, "per_round": 5}, "data.partition": {"kind": "iid", "samples": 1000}},
        "data.partition.samples: got 1000, expected at most 100 for 1000000 clients, 100,000,000 samples in all",
    ),
    "a model without end": (
        {"model": {"kind": "transformer", "objective": "classification", "layers": 10**9}, "topology": {"kind": "split", "cut": "auto"}},
        "model.layers: got 1000000000, expected at most 1000",
    ),
    "a number that no array can hold": ({"training.rounds": 10**30}, "training.rounds: got 1000000000000000000000000000000, expected at most 1000000000"),
}  # fmt: skip


@pytest.mark.parametrize("what", COUNTS)
def test_counts_that_nothing_could_hold_are_a_line_at_once(what, tmp_path):
    changes, said = COUNTS[what]
    (found,) = refused(garments(tmp_path, changes))
    assert said in found, found


def test_a_hundred_thousand_clients_are_checked(tmp_path):
    changes = {
        "population": {"clients": 100_000, "per_round": 5},
        "data.partition": {"kind": "iid", "samples": 10},
    }
    assert check(garments(tmp_path, changes)).scenario.population.clients == 100_000


@pytest.mark.parametrize(
    "partition", [{"kind": "dirichlet", "alpha": 1.0, "allow_empty": True}, {"kind": "iid", "samples": 10}]
)
def test_a_million_clients_are_arrays_not_objects(partition, tmp_path):
    began = time.monotonic()
    check(garments(tmp_path, {"population": {"clients": 10**6, "per_round": 5}, "data.partition": partition}))
    assert time.monotonic() - began < AT_ONCE_S


def test_of_many_files_that_are_not_there_fifty_are_named(tmp_path):
    traces = {"network.uplink": {"kind": "trace", "path": [f"{i}.trace" for i in range(60)]}}
    found = refused(garments(tmp_path, traces))
    assert (len(found), found[50]) == (51, "and 10 more")


def test_thousands_of_places_are_compared_at_once(tmp_path):
    at = [[1.0 + i, 1.0] for i in range(6000)] + [[5.0, 1.0]]
    cell = {"placement": {"kind": "places", "at": at}}
    changes = {
        "population": {"clients": 6001, "per_round": 5},
        "data.partition": {"kind": "iid", "samples": 1},
        "network.cell": cell,
    }
    (found,) = refused(garments(tmp_path, changes))
    assert "network.cell.placement.at.6000: got 0 m from client 4, expected a distance above 0" in found


# -- paths

NOT_FILES = [
    "/",
    "/proc",
    "/proc/self",
    "/dev",
    "/dev/zero",
    "/dev/null",
    "/sys",
    "pipe",
    "~nobody/x",
    "~no-such-user/x",
    "loop",
    "x/" * 900,
]


@pytest.fixture
def here(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize("path", NOT_FILES)
@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("data.path", {}),
        ("data.path", {"data": {"kind": "text", "path": "", "partition": {"kind": "iid"}}}),
        ("model.base", {}),
        ("evaluation.reference.path", {}),
        ("evaluation.reference.judge", {}),
        ("network.uplink.path", {"network.uplink": {"kind": "trace", "path": ""}}),
    ],
)
def test_a_path_to_no_file_is_a_line_at_once_under_every_key(key, section, path, here):
    if "data" in section:  # what learns from text
        section = section | {
            "model": {"kind": "transformer", "objective": "causal_language"},
            "evaluation": {},
        }
        section |= {"tuning": {"kind": "full"}, "evaluation": {}}
    file = write(here / "mine.yaml", section | {key: path})
    found = refused(file)
    assert [line for line in found if re.match(rf"{re.escape(str(file))}:\d+: {key}: got ", line)], found


def test_a_folder_of_more_files_than_anybody_could_go_through_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "MOST_ENTRIES", 40)
    for i in range(3):
        (tmp_path / "many" / str(i)).mkdir(parents=True)
        for k in range(15):
            (tmp_path / "many" / str(i) / f"{k}.png").touch()
    (found,) = refused(write(tmp_path / "mine.yaml", {"data.path": "many"}))
    assert (
        "data.path: got 'many', which has more than 40 files and folders in it, expected a regular file, or a folder of them"
        in found
    )


def test_a_folder_that_may_not_be_looked_into_is_a_line(tmp_path, monkeypatch):
    from fedray import checks

    def forbidden(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path / "theirs"))

    monkeypatch.setattr(checks, "holdings", forbidden)
    (found,) = refused(tiny(tmp_path))
    assert (
        f"data: got {tmp_path}/theirs, which cannot be read (Permission denied), expected files that can be read"
        in found
    )


def test_a_scenario_that_is_no_file_is_a_line(fedray, here):
    for name in ("/dev/zero", "pipe", "/", "x" * 300, "~nobody/x"):
        code, out, err = fedray("check", name)
        assert (code, out, err.count("\n")) == (2, "", 1), (name, err)


@pytest.mark.parametrize(
    "template",
    [
        "{label.__class__}",
        "{label[0]}",
        "{label!r}",
        "{label:>1000000000}",
        "{a:{label}}",
        "{}",
        "{0}",
        "{b}",
        "{",
    ],
)
def test_a_template_with_anything_but_label_and_a_in_braces_is_a_line(template, tmp_path):
    changes = {"augmentation": {"templates": ["a photo of {a} {label}", template]}}
    (found,) = refused(garments(tmp_path, changes))
    assert "augmentation.templates: got " in found
    assert found.endswith("expected a prompt in which only {label} and {a} stand in braces")


def test_a_template_may_write_braces_twice(tmp_path):
    check(garments(tmp_path, {"augmentation": {"templates": ["{a} {label} in {{braces}}"]}}))
