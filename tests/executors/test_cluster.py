"""Several nodes, fake GPUs, and sites whose images stay there. A node is killed in mid-run."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedray import shipped
from tests.helpers import UNSEEN, rows, run, tiny


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """The head at `south`, two nodes at `north`, with fake GPUs; images that any of their processes opens are
    noted."""
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("nodes")
    os.environ["FEDRAY_TEST_OPENED"] = str(folder / "opened")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    pulse = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
    }
    cluster = Cluster()
    try:
        kinds = {
            "south-1": {"num_cpus": 1, "_system_config": pulse},
            "north-1": {"num_cpus": 2},
            "north-2": {"num_cpus": 1},
        }
        for name, options in kinds.items():
            kinds[name] = cluster.add_node(
                **options, num_gpus=options["num_cpus"], labels={"site": name.split("-")[0]}
            )
        yield cluster, kinds, folder
    finally:
        cluster.shutdown()
        del os.environ["FEDRAY_TEST_OPENED"], os.environ["PYTHONPATH"]


def run_and_lose(cluster, losable, file, out, after=1):
    """A run on the cluster that loses one of these nodes, not its driver's, once so many rounds are done;
    what it says."""
    start = (
        "import ray, sys; ray.init(); print(ray.get_runtime_context().get_node_id())\n"
        # there is no room for who is lost, and will not be
        "from fedray.executors.ray import hosts; hosts.PLACEMENT_TIMEOUT_S = 4.0\n"
        "from fedray.cli import main; main()"
    )
    command = [sys.executable, "-u", "-c", start, "run", file, "--out", out]
    said, metrics = out.with_suffix(".txt"), out / "metrics.jsonl"
    with said.open("w") as f:
        process = subprocess.Popen(command, env=os.environ | {"RAY_ADDRESS": cluster.address}, stdout=f)
    try:
        while not (metrics.exists() and metrics.read_text().count("\n") >= after):
            assert process.poll() is None, said.read_text()
            time.sleep(0.01)
        here = said.read_text().split()[0]
        cluster.remove_node(
            next(node for node in list(losable) if node.node_id != here), allow_graceful=False
        )
        assert process.wait(timeout=150) == 0, said.read_text()
    finally:
        process.kill()
    return said.read_text()


def test_clients_pinned_to_sites_train_only_there_and_nodes_killed_in_mid_run_change_no_bit(nodes, tmp_path):
    cluster, by_name, folder = nodes
    site_of = {
        str(node.all_processes["raylet"][0].process.pid): name.split("-")[0] for name, node in by_name.items()
    }
    names = sorted(p.name for p in (shipped.HERE / "ink").iterdir() if p.is_dir())
    sites = {"north": names[:3], "south": names[3:]}
    for site, folders in sites.items():
        for name in folders:
            shutil.copytree(shipped.HERE / "ink" / name, tmp_path / f"photos-{site}" / name)
    data = {"kind": "image_folder", "path": "nowhere", "partition": {"kind": "folder"}, "sites": {}}
    data["sites"] = {
        site: {"path": str(tmp_path / f"photos-{site}"), "folders": folders}
        for site, folders in sites.items()
    }
    sgd = {"kind": "sgd", "learning_rate": 0.1}
    stateful = {
        "topology": {"kind": "parallel"},
        "aggregation": {"kind": "scaffold"},
        "training.optimizer": sgd,
    }
    held_out = {"evaluation": UNSEEN["evaluation"] | {"denoising": {"draws": 2}}, "data.holdout": 0.25}
    changes = held_out | stateful | {"training.rounds": 4}
    together = run(tiny(tmp_path, changes, "together.yaml"), tmp_path / "together")
    file = tiny(
        tmp_path,
        {"data": data} | changes | {"runtime": {"executor": "ray", "actors": 3, "checkpoint_every": 4}},
    )
    out = tmp_path / "apart"
    # what clients keep by then outlives it
    said = run_and_lose(cluster, [by_name["north-2"], by_name["north-1"]], file, out, after=2)
    assert "3 client actors on 3 nodes of 0.5 or 1 GPU and a server" in said
    assert "it is done again, by the actors there are" in said, said
    assert json.loads((out / "result.json").read_text())["weights_sha256"] == together["weights_sha256"]
    assert len(rows(out / "metrics.jsonl")) == 4
    measured = rows(
        out / "client_tests.jsonl"
    )  # by the clients themselves, on samples that are at their sites
    assert measured == rows(tmp_path / "together" / "client_tests.jsonl")
    assert [row["client"] for row in measured] == list(range(5))

    opened = [line.split(" ", 2) for line in (folder / "opened").read_text().splitlines()]
    assert {(site_of.get(parent), Path(file).parts[-3]) for _, parent, file in opened} == {
        (s, f"photos-{s}") for s in sites
    }
