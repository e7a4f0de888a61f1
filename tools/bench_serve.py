"""What `fedray serve` costs beside the bare pipeline, and what adapters over one base save beside merged models.

    uv run python tools/bench_serve.py [--seconds 10] [--steps 10] [--runs 10] [--width 3]

Both tables are measured in this run, on whatever machine this is. First latency and throughput on loopback: runs of
tiny-sd's quickstart (one round, copied) behind the command itself, against `sample` of the same model in this
process, in turns, so that all meet the same machine. Then the resident memory of a process that holds all runs' adapters over one
base, against one that holds their merged models: tiny-sd, and random networks of its shape with `--width` times
the channels, so that weights are more than what surrounds them. Each makes an image with every run's model; what
a process takes before that (code, and one image of tiny-sd) is not counted.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import torch

import fedray
from fedray import shipped
from fedray.http_service.requests import ImageRequest
from fedray.http_service.runs import read_runs
from fedray.http_service.sampler import Sampler

PROMPT = "a photo of a bag in ink style"
CPU = torch.device("cpu")
MB = 1e6
BLOCKS = 5  # in which each is measured, in turns


def make_runs(folder: Path, base: str, n: int) -> list[Path]:
    """One finished run over a base, and copies of it: n folders."""
    changes = {
        "model.base": base,
        "population": {"clients": 1, "per_round": 1},
        "data.partition": {"kind": "iid"},
        "training.rounds": 1,
        "training.local_steps": 1,
        "topology": {"kind": "parallel"},
        "evaluation.prompts": [],
        "runtime": {"executor": "serial"},
    }
    first = fedray.run(fedray.load("quickstart", changes), folder / "run-0", progress=False).path
    return [first, *(Path(shutil.copytree(first, folder / f"run-{i}")) for i in range(1, n))]


def make_base(folder: Path, width: int) -> Path:
    """Random networks of tiny-sd's shape, its U-Net with `width` times the channels."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    pipeline = StableDiffusionPipeline.from_pretrained(shipped.HERE / "tiny-sd", local_files_only=True)
    config = dict(pipeline.unet.config)
    config["block_out_channels"] = [width * channels for channels in config["block_out_channels"]]
    torch.manual_seed(0)
    pipeline.unet = UNet2DConditionModel.from_config(config)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def cpu_s(process: psutil.Process) -> float:
    """Processor seconds of a process and of all that it started."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def bare(sampler: Sampler, steps: int, seconds: float) -> list[float]:
    """Seconds of each image that the learner makes, for so long, without a service."""
    from fedray.learners.contexts import Sampling

    taken = []
    end = time.monotonic() + seconds
    while (start := time.monotonic()) < end:
        sampler.learner.sample([PROMPT], [len(taken)], Sampling(steps=steps))
        taken.append(time.monotonic() - start)
    return taken


def load(
    port: int, adapters: Sequence[str], clients: int, steps: int, seconds: float
) -> tuple[list[float], float]:
    """Seconds of each request of so many clients that ask again as soon as they are answered, and the seconds of all.

    Args:
        port: on loopback.
        adapters: asked for in turn.
        clients: at the same time.
        steps: of the sampler.
        seconds: for so long.
    """
    taken: list[float] = []
    begun = time.monotonic()

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        i = first
        while (start := time.monotonic()) < begun + seconds:
            body = {"prompt": PROMPT, "seed": i, "steps": steps, "adapter": adapters[i % len(adapters)]}
            connection.request("POST", "/generate", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            png = answer.read()
            assert answer.status == 200, png
            taken.append(time.monotonic() - start)
            i += 1

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken, time.monotonic() - begun


Row = tuple[float, float, float]


def row(name: str, taken: list[float], elapsed: float, used_cpu_s: float, reference: Row | None) -> Row:
    """One line: milliseconds, images a second, processor milliseconds an image, and their ratios to a reference's.

    Args:
        name: of what was measured.
        taken: seconds of each image.
        elapsed: seconds of all.
        used_cpu_s: processor seconds of all.
        reference: what an earlier call gave.
    """
    p50 = statistics.median(taken)
    p95 = statistics.quantiles(taken, n=20)[-1]
    measured = p50, len(taken) / elapsed, used_cpu_s / len(taken)
    line = f"{name:<34}{p50 * 1e3:>9.0f}{p95 * 1e3:>9.0f}{measured[1]:>10.2f}{measured[2] * 1e3:>8.0f}"
    if reference is not None:
        ratios = [a / b for a, b in zip(measured, reference, strict=True)]
        line += f"{ratios[0]:>9.2f}{ratios[1]:>10.2f}{ratios[2]:>6.2f}"
    print(line, flush=True)
    return measured


def measure_speed(runs: list[Path], steps: int, seconds: float) -> None:
    sampler = Sampler(read_runs(runs[:1]), CPU)
    bare(sampler, steps, 1.0)
    names = [run.name for run in runs]
    cases = [
        (f"served, {kind}, {clients} client{'s' * (clients > 1)}", chosen, clients)
        for kind, chosen in (("one adapter", names[:1]), (f"{len(names)} in turn", names))
        for clients in (1, 4)
    ]
    alone: list[float] = []
    alone_cpu_s = 0.0
    served: dict[str, list[float]] = {name: [] for name, *_ in cases}
    spent = dict.fromkeys(served, 0.0)
    spent_cpu_s = dict.fromkeys(served, 0.0)
    with started(runs) as (port, process):
        load(port, names, 1, steps, 2.0)  # every process has imported what it needs
        for _ in range(BLOCKS):
            before = time.process_time()
            alone += bare(sampler, steps, seconds / BLOCKS)
            alone_cpu_s += time.process_time() - before
            for name, chosen, clients in cases:
                before = cpu_s(process)
                taken, elapsed = load(port, chosen, clients, steps, seconds / BLOCKS)
                served[name] += taken
                spent[name] += elapsed
                spent_cpu_s[name] += cpu_s(process) - before
    print(
        f"{steps} steps, 32x32:{'':<17}{'p50 ms':>9}{'p95 ms':>9}{'images/s':>10}{'CPU ms':>8}"
        f"{'p50':>9}{'images/s':>10}{'CPU':>6}"
    )
    reference = row("bare pipeline", alone, sum(alone), alone_cpu_s, None)
    for name, taken in served.items():
        row(name, taken, spent[name], spent_cpu_s[name], reference)


@contextmanager
def started(runs: list[Path]) -> Iterator[tuple[int, psutil.Process]]:
    """The command, in a process of its own; its port."""
    command = [sys.executable, "-m", "fedray", "serve", *map(str, runs), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        yield int(line.split("127.0.0.1:")[1].split("/")[0]), psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def resident(load_all: Callable[[list[Path]], object], runs: list[Path], warm: Path) -> float:
    """Bytes that a process of its own takes more with these models than before."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_resident, args=(load_all, runs, warm, results))
    process.start()
    grown = results.get(timeout=600)
    process.join()
    return float(grown)


def _resident(
    load_all: Callable[[list[Path]], object], runs: list[Path], warm: Path, results: object
) -> None:
    over_one_base([warm])
    gc.collect()
    before = psutil.Process().memory_info().rss
    models = load_all(runs)
    gc.collect()
    results.put(psutil.Process().memory_info().rss - before)
    del models


def over_one_base(runs: list[Path]) -> Sampler:
    served = read_runs(runs)
    sampler = Sampler(served, CPU)
    for run in served:
        sampler.sample(ImageRequest(run.name, PROMPT, 0, 2, 3.0))
    return sampler


def merged(runs: list[Path]) -> list[Sampler]:
    return [over_one_base([run]) for run in runs]


def measure_memory(name: str, runs: list[Path], warm: Path) -> None:
    one = resident(merged, runs[:1], warm)
    adapters = resident(over_one_base, runs, warm)
    copies = resident(merged, runs, warm)
    print(
        f"{name:<36}{one / MB:>9.0f}{adapters / MB:>12.0f}{copies / MB:>12.0f}{copies / adapters:>9.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row")
    parser.add_argument("--steps", type=int, default=10, help="of the sampler")
    parser.add_argument("--runs", type=int, default=10, help="whose adapters share a base")
    parser.add_argument("--width", type=int, default=3, help="times tiny-sd's channels")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedray-") as name:
        folder = Path(name)
        small = make_runs(folder / "tiny", "tiny-sd", arguments.runs)
        measure_speed(small, arguments.steps, arguments.seconds)
        print(f"\n{'MB resident':<36}{'1 model':>9}{'adapters':>12}{'merged':>12}{'ratio':>9}")
        measure_memory(f"tiny-sd, {arguments.runs} runs", small, small[0])
        base = make_base(folder / "base", arguments.width)
        wide = make_runs(folder / "wide", str(base), arguments.runs)
        size = sum(
            file.stat().st_size for file in (wide[0] / "model").rglob("*") if file.parent.parent != wide[0]
        )
        measure_memory(f"{size / MB:.0f} MB of weights, {arguments.runs} runs", wide, small[0])


if __name__ == "__main__":
    main()
