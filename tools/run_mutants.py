"""Runs a random sample of mutated shipped scenarios that `check` accepts: one round each, made small, in a
process of its own. What check lets through must run, fail with a message (exit code 1) or be refused (2), and
never show a traceback.

    nice -n 10 python tools/run_mutants.py --sample 60
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from fedray import shipped  # noqa: E402
from fedray.checks import check  # noqa: E402
from fedray.data.sources import to_download  # noqa: E402
from fedray.learners.bases import locate  # noqa: E402
from fedray.scenario import Loaded, Refused, ScenarioError  # noqa: E402
from tests.scenario.test_mutations import mutated  # noqa: E402

SMALL = [  # what makes a run short, as far as a scenario has the section and still passes `check`
    "training.rounds=1",
    "training.local_epochs=null",
    "training.local_steps=1",
    "training.batch_size=4",
    "runtime={executor: serial}",
    "evaluation.images_per_prompt=1",
    "evaluation.inference_steps=2",
    "evaluation.new_tokens=5",
    "evaluation.reference.images_per_caption=1",
    "evaluation.quality.images=16",
    "evaluation.leakage.samples=16",
    "evaluation.leakage.attack_steps=2",
    "augmentation.inference_steps=2",
    "augmentation.per_class=1",
    "population.per_round=2",
    "augmentation.weighting.images=50",
]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--seed", type=int, default=20261126)
    parser.add_argument("--limit", type=float, default=180, help="seconds a run may take")
    parser.add_argument("--keep", type=Path, help="a folder for the scenarios that were run")
    a = parser.parse_args()
    bad, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = a.keep or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(accepted(a.sample, a.seed, folder)):
            code, seconds, said = run(file, Path(place) / f"run-{number}", a.limit)
            wrong = code not in (0, 1, 2) or "Traceback (most recent call last)" in said
            bad += wrong
            last = said.strip().split("\n")[-1] if code or wrong else ""
            print(
                f"{file.name}: {'WRONG ' if wrong else ''}{code} after {seconds:.0f} s {reason(said) or last}"[
                    :300
                ],
                flush=True,
            )
    print(f"{a.sample} runs, {bad} wrong, {time.monotonic() - began:.0f} s")
    return int(bad > 0)


def accepted(sample: int, seed: int, folder: Path) -> Iterator[Path]:
    """Files of so many mutants that `check` accepts and that can run here, of a sweep one variant, made
    small."""
    rng = random.Random(seed)
    texts = [file.read_text(encoding="utf-8") for file in shipped.scenarios().values()]
    found = tried = 0
    while found < sample:
        tried += 1
        file = folder / f"mutant-{tried}.yaml"
        text = rng.choice(texts)
        changed = mutated(text, rng)
        file.write_text(changed, encoding="utf-8")
        try:
            loaded = check(file)
        except ScenarioError:
            loaded = None
        if loaded is None or changed == text:
            file.unlink()
            continue
        one = rng.choice(list(loaded.variants.values()) or [loaded])
        if not runnable(one):
            file.unlink()
            continue
        file.write_text(one.resolved(), encoding="utf-8")
        file.write_text(small(file).resolved(), encoding="utf-8")
        found += 1
        yield file


def runnable(loaded: Loaded) -> bool:
    """Whether its data and its weights are here."""
    scenario = loaded.scenario
    try:
        bases = [
            getattr(scenario.model, "base", None),
            scenario.augmentation and scenario.augmentation.generator,
        ]
        here = all(Path(locate(base, loaded.folder).source).is_dir() for base in bases if base)
    except Refused:
        return False
    return here and not scenario.sites and to_download(scenario.data, loaded.folder) is None


def small(file: Path) -> Loaded:
    """The scenario with as many of the above settings as it takes."""
    taken: list[str] = []
    for setting in SMALL:
        section = setting.split("=")[0].rpartition(".")[0]
        loaded = check(file, taken)
        at = loaded.tree
        for key in filter(None, section.split(".")):
            at = at.get(key) if isinstance(at, dict) else None
        if section and at is None:
            continue
        more = (
            ["training.local_epochs=null", "training.local_steps=1"]
            if "local_epochs" in setting
            else [setting]
        )
        try:
            check(file, [*taken, *more])
        except ScenarioError:
            continue
        taken += more
    return check(file, taken)


def run(file: Path, out: Path, limit_s: float) -> tuple[int, float, str]:
    """Exit code (124: it took too long), seconds, and what was printed, with what its log and error.json
    say."""
    began = time.monotonic()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fedray", "run", str(file), "--out", str(out)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s, env=environment, cwd=out.parent
        )
        code, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        code, said = 124, "took too long"
    if code == 1 and (out / "error.json").exists():
        error = json.loads((out / "error.json").read_text(encoding="utf-8"))
        said += f"\n{error.get('error')}: {error.get('message')}"
    return code, time.monotonic() - began, said


def reason(said: str) -> str:
    """What a run that failed says first."""
    return next(
        (line for line in said.split("\n") if line.startswith("the run failed") or ": got " in line), ""
    )


if __name__ == "__main__":
    sys.exit(main())
