"""What a reference adds to metrics, and how a bad one is refused."""

import shutil

import pytest

from fedray import shipped
from tests.helpers import PROMPT, rows, run, tiny

LOOKED = {"prompts": [], "inference_steps": 2}


def reference(folder, label="sneaker"):
    """Two held-out images in a folder."""
    held_out = folder / "heldout"
    held_out.mkdir()
    for i in (1, 2):
        shutil.copy(shipped.HERE / "ink-heldout" / f"{label}-{i}.png", held_out)
    (held_out / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{label}-{i}.png", "text": "{PROMPT}"}}\n' for i in (1, 2))
    )
    return held_out


def test_a_reference_adds_distances_floors_and_what_is_recognised(tmp_path):
    reference(tmp_path)
    evaluation = {"prompts": [PROMPT], "images_per_prompt": 2, "inference_steps": 2, "every": 1}
    evaluation["reference"] = {"path": "heldout", "images_per_caption": 1, "plain_prompts": False}
    result = run(tiny(tmp_path, {"evaluation": evaluation, "training.batch_size": 1}), tmp_path / "run")
    expected = {
        "eval_feature_distance",
        "eval_feature_distance_floor",
        "eval_darkness_distance",
        "eval_darkness_distance_floor",
        "eval_recognised",
        "eval_images",
    }
    metrics = rows(tmp_path / "run" / "metrics.jsonl")
    for row in (result["baseline"], *metrics):
        assert {k for k in row if k.startswith("eval_")} == expected
        assert row["eval_images"] == 2
        assert 0 <= row["eval_recognised"] <= 1
        assert row["eval_feature_distance_floor"] == result["baseline"]["eval_feature_distance_floor"]
    assert sorted(p.name for p in (tmp_path / "run" / "samples").iterdir()) == [
        "round-0000.png",
        "round-0001.png",
        "round-0002.png",
    ]


def test_rounds_between_are_not_looked_at(tmp_path):
    quick = {"population": {"clients": 5, "per_round": 1}, "training.batch_size": 1}
    run(tiny(tmp_path, quick | {"evaluation.every": 2, "training.rounds": 3}), tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run" / "samples").iterdir()) == [
        "round-0000.png",
        "round-0002.png",
        "round-0003.png",
    ]


@pytest.mark.parametrize(
    "wrong", ["a judge that is none", "an image that cannot be read", "a caption that names no garment"]
)
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_a_bad_reference_is_a_line_of_the_scenario_before_anything_trains(wrong, verb, tmp_path, fedray):
    held_out = reference(tmp_path)
    judge = "shipped:garments"
    if wrong == "a judge that is none":
        judge = "judge.safetensors"
        shutil.copy(shipped.HERE / "tiny-sd" / "text_encoder" / "model.safetensors", tmp_path / judge)
    elif wrong == "an image that cannot be read":
        (held_out / "sneaker-2.png").write_bytes(b"no image")
    else:
        (held_out / "metadata.jsonl").write_text(
            (held_out / "metadata.jsonl").read_text().replace("sneaker in", "hat in")
        )
    evaluation = LOOKED | {
        "reference": {"path": "heldout", "judge": judge, "images_per_caption": 1, "plain_prompts": False}
    }
    file = tiny(tmp_path, {"evaluation": evaluation})
    code, _, err = fedray(verb, file, *(["--out", "run"] if verb == "run" else []))
    assert code == 2, err
    assert err.startswith(f"{file}:")
    assert "evaluation.reference" in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
