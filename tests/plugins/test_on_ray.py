"""Users' kinds on Ray: actors get the modules with the run, and give the bits of one process."""

import json
from contextlib import nullcontext

import pytest

from tests.helpers import run, unevaluated
from tests.plugins.test_bad_input import raised_at
from tests.plugins.test_runs import ALL, SPLIT
from tests.plugins.users import users_folder

ON_RAY = {"runtime": {"executor": "ray", "actors": 2}}


@pytest.mark.parametrize("changes", [ALL, SPLIT], ids=["a kind of each room", "a split"])
def test_actors_give_the_bits_of_one_process(changes, cluster, tmp_path):
    serial = run(users_folder(tmp_path / "serial", changes), tmp_path / "serial" / "run")
    on_ray = {"runtime": ON_RAY["runtime"] | {"report_to": changes.get("runtime", {}).get("report_to", [])}}
    ray = run(users_folder(tmp_path / "ray", changes | on_ray), tmp_path / "ray" / "run")
    assert ray["weights_sha256"] == serial["weights_sha256"]


@pytest.mark.parametrize(
    ("name", "changes", "where"),
    [
        ("Learning", {"model": {"kind": "my_broken:Learning"}}, "client 0 in round 1, while training"),
        (
            "Combining",
            {"aggregation": {"kind": "my_broken:Combining"}},
            "the server in round 1, while aggregating",
        ),
    ],
)
def test_what_raises_in_an_actor_is_told_as_in_one_process(name, changes, where, cluster, fedray, tmp_path):
    file = users_folder(tmp_path / "home", changes | {"runtime": {"executor": "ray", "actors": 1}})
    with nullcontext() if name == "Measuring" else unevaluated():
        code, _, err = fedray("run", file, "--out", "run", "--quiet")
    assert code == 1
    told = f"the run failed: {where}: KeyError: 'no such key' ({raised_at(tmp_path / 'home', name)})"
    assert told in err.splitlines()
    assert "Traceback" not in err
    assert json.loads((tmp_path / "run" / "error.json").read_text())["error"] == "KeyError"
