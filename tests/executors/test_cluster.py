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

ROUNDS = 4


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A head without room for clients, two nodes at `north`, one at `south`; images opened anywhere are noted."""
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("nodes")
    os.environ["FEDRAY_TEST_OPENED"] = str(folder / "opened")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
    try:
        kinds = [("north", "north-1"), ("north", "north-2"), ("south", "south-1")]
        yield cluster, {name: cluster.add_node(num_cpus=1, labels={"site": site, "name": name}) for site, name in kinds}, folder
    finally:
        cluster.shutdown()
        del os.environ["FEDRAY_TEST_OPENED"], os.environ["PYTHONPATH"]


def test_clients_pinned_to_sites_train_there_alone_and_a_killed_node_changes_no_bit(nodes, tmp_path):
    cluster, by_name, folder = nodes
    names = sorted(p.name for p in (shipped.HERE / "ink").iterdir() if p.is_dir())
    sites = {"north": names[:2], "south": names[2:]}
    for site, folders in sites.items():
        for name in folders:
            shutil.copytree(shipped.HERE / "ink" / name, tmp_path / f"photos-{site}" / name)
    changes = UNSEEN | {"training.rounds": ROUNDS, "training.local_steps": 2}
    expected = run(tiny(tmp_path, changes, "together.yaml"), tmp_path / "together")["weights_sha256"]

    data = {"kind": "image_folder", "path": "nowhere", "partition": {"kind": "folder"}, "sites": {}}
    data["sites"] = {site: {"path": str(tmp_path / f"photos-{site}"), "folders": folders} for site, folders in sites.items()}
    file = tiny(tmp_path, changes | {"data": data, "runtime": {"executor": "ray", "actors": 3}}, "apart.yaml")
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    out = tmp_path / "apart"
    process = subprocess.Popen(
        [sys.executable, "-m", "fedray", "run", file, "--out", out], env=environment, stdout=subprocess.PIPE, text=True
    )
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text().count("\n"):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    cluster.remove_node(by_name["north-2"], allow_graceful=False)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    print(said)
    assert json.loads((out / "result.json").read_text())["weights_sha256"] == expected
    assert len(rows(out / "metrics.jsonl")) == ROUNDS

    site_of = {node.all_processes["raylet"][0].process.pid: name.split("-")[0] for name, node in by_name.items()}
    opened = [line.split(" ", 2) for line in (folder / "opened").read_text().splitlines()]
    assert {(site_of.get(int(parent)), Path(file).parts[-3]) for _, parent, file in opened} == {(s, f"photos-{s}") for s in sites}
