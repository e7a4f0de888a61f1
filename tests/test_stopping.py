"""Early stopping and the best model: what evaluations decide, and that a resumed run decides the same."""

import json
import random
from types import SimpleNamespace

import pytest

from fedray.executors import EvaluationHandle
from fedray.executors.serial import SerialExecutor
from fedray.scenario import ScenarioError
from fedray.scenario.stopping import EarlyStopping, Watched
from fedray.stopping import best_round, stop
from tests.helpers import ONE_ACTOR, garments, job_of, rows, run

LOSSES = [9.0, 0.9, 0.5, 0.6, 0.55, 0.4, 0.7, 0.8]  # before the first round, and after each
STOPS = {"every": 1, "early_stopping": {"metric": "eval_loss", "patience": 2}, "best": "eval_loss"}


def lines(values):
    return [{"round": i, "eval_loss": value} for i, value in enumerate(values, 1)]


def section(**changes):
    return EarlyStopping(metric="eval_loss", **changes)


def stopped_by_transformers(values, patience, mode):
    """After which value transformers' callback stops, if it does."""
    from transformers import EarlyStoppingCallback

    callback = EarlyStoppingCallback(early_stopping_patience=patience)
    args = SimpleNamespace(greater_is_better=mode == "max", metric_for_best_model="eval_loss")
    state = SimpleNamespace(best_metric=None)
    better = max if mode == "max" else min
    for number, value in enumerate(values, 1):
        callback.check_metric_value(args, state, None, value)
        if callback.early_stopping_patience_counter >= patience:
            return number
        state.best_metric = value if state.best_metric is None else better(state.best_metric, value)
    return None


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_run_ends_where_transformers_callback_ends_it(mode):
    draw = random.Random(0)
    ends = set()
    for patience in (1, 2, 3, 4) * 10:
        values = [float(draw.randint(0, 6)) for _ in range(12)]
        ours = section(patience=patience, mode=mode)
        decided = (stop(ours, lines(values[:n])) for n in range(1, len(values) + 1))
        first = next((found.round for found in decided if found is not None), None)
        assert first == stopped_by_transformers(values, patience, mode)
        ends.add(first)
    assert len(ends) > 5


def test_the_best_is_the_first_of_equals_and_what_is_no_number_is_no_better():
    values = [3.0, None, 2.0, 2.0]
    assert best_round(section(), lines(values))[:] == (3, "eval_loss", 2.0)
    assert stop(section(patience=2), lines([3.0, None, None])).best_round == 1
    assert stop(section(patience=1, min_delta=0.5), lines([3.0, 2.6])).best == 3.0
    assert stop(section(patience=1, min_delta=0.5), lines([3.0, 2.4])) is None


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        ("eval_accuracy", 1),
        ("eval_clients_accuracy_worst", 1),
        ("eval_classifier_fid", -1),
        ("eval_loss", -1),
        ("eval_weight", 0),
    ],
)
def test_a_metrics_name_says_which_way_is_better_or_somebody_has_to(name, sign):
    assert Watched(metric=name).sign == sign


@pytest.fixture
def scripted(monkeypatch):
    """Evaluations of these losses, whatever the model is."""

    def evaluate(self, grid, base=False):
        number = 0 if base else int(grid.stem.removeprefix("round-"))
        return EvaluationHandle(lambda: True, lambda: {"eval_loss": LOSSES[number]})

    monkeypatch.setattr(SerialExecutor, "evaluate", evaluate)


def scenario(folder, rounds=7, evaluation=STOPS):
    changes = {"evaluation": evaluation, "training.rounds": rounds, "population": {"clients": 2}}
    return garments(folder, changes, f"{rounds}.yaml")


def weights(folder):
    (file,) = (folder / "model").glob("*.safetensors")
    return file.read_bytes()


def test_a_run_ends_after_the_round_that_decides_and_exports_the_best_model(scripted, tmp_path, fedray):
    result = run(scenario(tmp_path), tmp_path / "stops")
    facts = {"round": 4, "metric": "eval_loss", "patience": 2, "best": 0.5, "best_round": 2}
    assert (result["rounds"], result["stopped"]) == (4, facts)
    plain = {"every": 1}
    alone = {n: run(scenario(tmp_path, n, plain), tmp_path / f"{n}") for n in (2, 4)}
    assert result["weights_sha256"] == alone[4]["weights_sha256"]
    best = {"round": 2, "metric": "eval_loss", "value": 0.5, "weights_sha256": alone[2]["weights_sha256"]}
    assert result["best"] == best
    assert weights(tmp_path / "stops") == weights(tmp_path / "2")
    assert sorted(p.name for p in (tmp_path / "stops" / "checkpoints").iterdir())[0] == "best"

    # done: it goes on only where somebody says so, and then from its last round, with fresh patience
    assert fedray("run", "--resume", "stops")[1].splitlines()[0].endswith(result["weights_sha256"][:12])
    assert len(rows(tmp_path / "stops" / "metrics.jsonl")) == 4
    assert fedray("run", "--resume", "stops", "--rounds", 7, "--quiet")[0] == 0
    longer = json.loads((tmp_path / "stops" / "result.json").read_text())
    assert (longer["rounds"], longer["best"]["round"]) == (7, 5)
    assert longer["stopped"]["best_round"] == 5
    run(scenario(tmp_path, 5, plain), tmp_path / "5")
    assert weights(tmp_path / "stops") == weights(tmp_path / "5")


def test_a_run_that_was_broken_off_once_it_was_decided_trains_nothing_more(scripted, tmp_path):
    result = run(scenario(tmp_path), tmp_path / "stops")
    for gone in ("result.json", "metrics.parquet"):
        (tmp_path / "stops" / gone).unlink()
    for file in (tmp_path / "stops" / "checkpoints" / "best").iterdir():
        file.unlink()
    again = run(tmp_path, tmp_path / "stops", resume=True)
    assert (again["rounds"], again["stopped"]) == (4, result["stopped"])
    assert "best" not in again  # its checkpoint is gone, which is said, and the last round's model exported
    assert again["weights_sha256"] == result["weights_sha256"]


def test_an_evaluator_beside_the_rounds_decides_what_one_process_does(tmp_path, cluster):
    changes = {
        "training": {
            "rounds": 5,
            "local_steps": 2,
            "batch_size": 4,
            "accumulate": 2,
            "optimizer": {"kind": "nadam", "learning_rate": 0.2},
            "schedule": {"kind": "cosine", "warmup": 2, "final": 0.001},
        },
        "evaluation": {
            "every": 1,
            "early_stopping": {"metric": "eval_loss", "patience": 1},
            "best": "eval_loss",
        },
    }
    serial, on_ray = (
        run(garments(tmp_path, changes | {"runtime": runtime}), tmp_path / runtime["executor"])
        for runtime in ({"executor": "serial"}, ONE_ACTOR)
    )
    assert serial["rounds"] < 5
    for key in ("rounds", "stopped", "best", "weights_sha256"):
        assert serial[key] == on_ray[key]


REFUSED = {
    "without evaluations": (
        {"early_stopping": {"metric": "eval_loss"}},
        "evaluation.early_stopping: got one without evaluation.every, expected evaluation.every",
    ),
    "patience that no run has": (
        {"every": 2, "early_stopping": {"metric": "eval_loss", "patience": 3}},
        "evaluation.early_stopping.patience: got 3, with an evaluation every 2 rounds, expected one",
    ),
    "a name that says nothing": (
        {"best": {"metric": "eval_weight"}},
        "evaluation.best.mode: got auto for eval_weight, whose name does not say, expected min or max",
    ),
    "a training loss": ({"best": "loss"}, "evaluation.best: got 'loss', expected text that matches ^eval_"),
}


@pytest.mark.parametrize(("evaluation", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_decide_is_refused(evaluation, message, tmp_path):
    with pytest.raises(ScenarioError) as refused:
        job_of(scenario(tmp_path, 8, evaluation))
    assert message in str(refused.value)


def test_a_metric_that_nothing_measures_is_refused_before_anything_trains(tmp_path):
    file = scenario(tmp_path, 7, {"best": {"metric": "eval_fid"}})
    with pytest.raises(
        ScenarioError, match=r"evaluation.best.metric: got eval_fid, expected one of eval_accuracy"
    ):
        run(file, tmp_path / "run")
    assert not rows(tmp_path / "run" / "metrics.jsonl")
