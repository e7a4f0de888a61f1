"""A cluster of four nodes that loses one every minute, and gets another: the same bits as an undisturbed run in one
process. Beside it, what the losses cost.

    uv run python tools/chaos.py [--minutes 5] [--every 60]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

TRIED = 10  # rounds by whose pace the others are counted
PULSE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}
DRIVER = (
    "import ray, sys; ray.init(); print(ray.get_runtime_context().get_node_id(), flush=True)\n"
    "from fedray.cli import main; main()"
)


def scenario(folder: Path, name: str, rounds: int, executor: str) -> Path:
    """Twelve clients that train a classifier on shipped garments, and keep SCAFFOLD's state between rounds."""
    link = {"kind": "fixed", "rate_bps": 2.0e7}
    device = {"kind": "flops", "peak_flops": 1.0e10, "active_w": 5}
    described = {
        "name": name,
        "topology": {"kind": "parallel"},
        "population": {"clients": 12, "per_round": 9},
        "data": {"kind": "fashion_mnist_mini", "partition": {"kind": "iid"}},
        "model": {"kind": "classifier"},
        "tuning": {"kind": "full"},
        "training": {
            "rounds": rounds,
            "local_steps": 40,
            "batch_size": 16,
            "optimizer": {"kind": "sgd", "learning_rate": 0.01},
        },
        "aggregation": {"kind": "scaffold"},
        "network": {
            **dict.fromkeys(("uplink", "downlink", "sidelink"), link),
            **dict.fromkeys(("device", "server"), device),
        },
        "evaluation": {"every": rounds},
        "runtime": {
            "executor": executor,
            "threads": 1,
            "checkpoint_every": 10,
            **({"actors": 4, "failures": {"retries": 5}} if executor == "ray" else {}),
        },
    }
    file = folder / f"{name}.yaml"
    with file.open("w") as stream:
        YAML().dump(described, stream)
    return file


def disturbed(file: Path, out: Path, every_s: float) -> int:
    """Runs a scenario on a cluster that loses a node every so many seconds; how many it lost."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    lost = 0
    try:
        cluster.add_node(num_cpus=2, _system_config=PULSE)
        nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
        said = out.with_suffix(".txt")
        command = [sys.executable, "-u", "-c", DRIVER, "run", str(file), "--out", str(out)]
        known = os.environ | {"RAY_ADDRESS": cluster.address}
        with (
            said.open("w") as stream,
            out.with_suffix(".err").open("w") as errors,
        ):  # Ray says much of its losses
            process = subprocess.Popen(command, env=known, stdout=stream, stderr=errors)
        next_s = time.monotonic() + every_s
        while process.poll() is None:
            time.sleep(0.2)
            if time.monotonic() < next_s:
                continue
            here = said.read_text().split("\n")[0]
            victim = random.choice([node for node in nodes if node.node_id != here])
            cluster.remove_node(victim, allow_graceful=False)
            nodes.remove(victim)
            lost += 1
            nodes.append(cluster.add_node(num_cpus=1))
            next_s += every_s
        if process.returncode:
            sys.exit(f"it ended with {process.returncode}:\n{said.read_text()[-2000:]}")
    finally:
        cluster.shutdown()
    return lost


def undisturbed(folder: Path, name: str, rounds: int) -> float:
    """Seconds of a run in one process, which leaves its folder under this name."""
    begun = time.perf_counter()
    file = scenario(folder, f"{name}-alone", rounds, "serial")
    command = [sys.executable, "-m", "fedray", "run", str(file), "--out", str(folder / name), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def pace_s(out: Path) -> float:
    """Seconds of a round, without the first and the evaluation behind the last."""
    walls = [json.loads(line)["wall_time_s"] for line in (out / "metrics.jsonl").open()]
    return (walls[-2] - walls[0]) / (len(walls) - 2)


def sha(out: Path) -> str:
    return str(json.loads((out / "result.json").read_text())["weights_sha256"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--every", type=float, default=60, help="seconds between two losses")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        undisturbed(folder, "pace", TRIED)
        rounds = max(TRIED, round(60 * options.minutes / pace_s(folder / "pace")))
        one_s = undisturbed(folder, "one", rounds)
        begun = time.perf_counter()
        lost = disturbed(scenario(folder, "chaos", rounds, "ray"), folder / "many", options.every)
        many_s = time.perf_counter() - begun
        same = sha(folder / "one") == sha(folder / "many")
    print(f"{rounds} rounds: {one_s:.0f} s in one process; {many_s:.0f} s on four nodes that lost {lost}")
    print("the same bits" if same else "OTHER BITS")
    sys.exit(not same)


if __name__ == "__main__":
    main()
