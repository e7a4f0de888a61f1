"""Prompts chosen by clients' scores, and a generator that is fine-tuned first."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fedray.augmentation.trial import Candidate, Trial, chosen, mean_scores
from fedray.checks import check
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from tests.helpers import broken_off, garments, rows, run

NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
TEMPLATES = {name: ["a photo of {a} {label}"] for name in NAMES}
TEMPLATES |= {"shirt": ["a photo of a dress {label}", "a photo of a {label}"]}
PAINT = {"inference_steps": 2, "per_class": 1, "at_most": 2, "batch_size": 8, "templates": TEMPLATES}
EVIDENCE = PAINT | {"prompts": {"kind": "evidence", "images": 3, "round": 1}}
TOTALS = ("bytes_uplink", "bytes_downlink", "bytes_sidelink", "sim_time_s", "energy_j")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("prompts") / "run"
    file = garments(out.parent, {"augmentation": EVIDENCE, "training.rounds": 3})
    return file, out, run(file, out)


def test_candidates_go_down_and_one_number_each_comes_back_before_the_update(whole):
    first = {e["id"]: e for e in rows(whole[1] / "timeline.jsonl") if e["round"] == 1}
    assert first["paint-candidates"]["flops"] > 0
    for k in range(5):
        assert first[f"candidates-{k}"]["bytes"] == 2 * 3 * 32 * 32
        assert first[f"scores-{k}"]["bytes"] == 2 * 4
        assert first[f"score-{k}"]["t0_s"] >= first[f"train-{k}"]["t1_s"]
        assert first[f"scores-{k}"]["t1_s"] <= first[f"up-{k}"]["t0_s"]


def test_painting_begins_after_the_trial_with_the_prompt_that_has_the_best_score(whole):
    assert [r.get("pictures", 0) for r in rows(whole[1] / "metrics.jsonl")] == [0, 10, 20]
    tried = json.loads((whole[1] / "augmentation.json").read_text())["prompts"]
    assert [p["label"] for p in tried] == ["shirt", "shirt"]
    best = max(tried, key=lambda p: p["score"])
    assert [p for p in tried if p["chosen"]] == [best]
    painted = [
        json.loads(Image.open(file).info["fedray"])["prompt"]
        for file in sorted((whole[1] / "pictures").glob("*-shirt.png"))
        if "t-shirt" not in file.name
    ]
    assert painted == [best["prompt"]] * 2
    assert Image.open(whole[1] / "samples" / "candidates.png").height > 0


def test_a_plan_with_a_trial_is_what_the_run_does(whole):
    total = plan(check(whole[0]))["total"]
    assert {k: whole[2]["final"][k] for k in TOTALS} == {k: total[k] for k in TOTALS}


def test_a_run_that_goes_on_after_the_trial_paints_with_the_same_prompts(whole, tmp_path):
    out = broken_off(whole[1], tmp_path / "run", 3)
    shutil.rmtree(out / "pictures")
    assert run(None, out, resume=True)["weights_sha256"] == whole[2]["weights_sha256"]


def test_a_clients_score_counts_by_its_samples_of_the_label():
    counts = np.array([[3, 0], [1, 0], [0, 0]])
    candidates = tuple(Candidate(label, i) for label in (0, 1) for i in (0, 1))
    trial = Trial(candidates, 8, counts, (0, 1, 2))
    scores = {0: (0.2, 0.6, 0.1, 0.3), 1: (1.0, 0.2, 0.4, 0.3), 2: (0.0, 0.0, 0.4, 0.0)}
    means = mean_scores(trial, scores, 2)
    np.testing.assert_allclose(means, [[0.4, 0.5], [0.3, 0.2]], rtol=1e-6)  # of label 1 nobody has any
    assert chosen(means) == {0: 1, 1: 0}
    assert chosen(mean_scores(trial, {}, 2)) == {}  # nobody scored


BAD = {
    "a trial in the last round": ({"prompts": {"kind": "evidence", "round": 2}}, ".prompts.round: got 2"),
    "nothing to choose from": (
        {"prompts": {"kind": "evidence", "round": 1}, "templates": ["a {label}"]},
        ".prompts.kind: got evidence for labels of one template",
    ),
    "clients that paint for themselves": (
        EVIDENCE | {"at": "client"},
        "augmentation.at: got client with prompts by evidence",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_trial_that_cannot_be_is_refused(what, tmp_path):
    changes, line = BAD[what]
    with pytest.raises(ScenarioError) as refused:
        check(garments(tmp_path, {"augmentation": PAINT | changes}))
    assert any(line in problem for problem in refused.value.problems)


def test_a_generator_that_is_tuned_first_is_charged_for_in_plan_and_run(tmp_path):
    from fedray import execution
    from fedray.terminal import Quiet

    tune = {
        "rounds": 1,
        "local_steps": 1,
        "batch_size": 2,
        "optimizer": {"kind": "adamw", "learning_rate": 1.0e-4},
        "tuning": {"kind": "lora", "rank": 2},
    }
    changes = {
        "population": {"clients": 100, "per_round": 2},  # of 25 garments each
        "training.rounds": 1,
        "augmentation": PAINT | {"templates": ["a {label}"], "names": {"shirt": "dress shirt"}},
    }
    changes["augmentation"] |= {"tune_first": tune}
    loaded = check(garments(tmp_path, changes))
    planned = plan(loaded)
    first = planned["generator"]["total"]
    folder = execution.create(loaded, tmp_path / "run")
    result = execution.execute(folder, loaded, Quiet())
    assert {k: result["final"][k] for k in TOTALS} == {k: planned["total"][k] for k in TOTALS}
    assert planned["total"]["bytes_uplink"] == first["bytes_uplink"] + planned["per_round"]["bytes_uplink"]
    assert first["bytes_uplink"] == 2 * planned["generator"]["payload_bytes_uplink"]
    picture = next((tmp_path / "run" / "pictures").glob("*.png"))
    made_by = json.loads(Image.open(picture).info["fedray"])["generator"]
    assert made_by == str(tmp_path / "run" / "generator" / "model")
    (tmp_path / "run" / "result.json").unlink()
    tuned = (tmp_path / "run" / "generator" / "metrics.jsonl").stat().st_mtime_ns
    again = execution.execute(folder, loaded, Quiet(), resume=True)
    assert again["weights_sha256"] == result["weights_sha256"]
    assert (tmp_path / "run" / "generator" / "metrics.jsonl").stat().st_mtime_ns == tuned
