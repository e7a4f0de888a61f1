"""What frozen networks make of a client's samples is computed once, and charged once."""

import pytest

from fedray.checks import check
from fedray.planning.plan import plan
from tests.helpers import UNSEEN, garments, rows, run, tiny

SAMPLES = 4  # of each of the quickstart's clients
ROUNDS = {"training.rounds": 3, "training.local_steps": 2, "training.batch_size": 4}


def computed(run_folder, events):
    """Floating-point operations of each client's events of these kinds, by round."""
    found = {}
    for e in rows(run_folder / "timeline.jsonl"):
        if e["event"] in events:
            found.setdefault(e["node"], {}).setdefault(e["round"], []).append(e["flops"])
    return found


@pytest.mark.parametrize(
    "topology", [{"kind": "relay", "order": "random", "chains": 1}, {"kind": "parallel"}]
)
def test_a_client_encodes_its_samples_in_its_first_turn_and_in_no_other(topology, tmp_path):
    file = tiny(
        tmp_path, UNSEEN | ROUNDS | {"topology": topology, "population": {"clients": 5, "per_round": 3}}
    )
    planned = plan(check(file))
    run(file, tmp_path / "run")
    trained, encoded = 2 * 4 * planned["flops_per_sample"], SAMPLES * planned["encode_flops_per_sample"]
    assert encoded > 0
    for by_round in computed(tmp_path / "run", ["train"]).values():
        first, *others = [flops for (flops,) in by_round.values()]
        assert first == pytest.approx(trained + encoded)
        assert others == pytest.approx([trained] * len(others))
    last = rows(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last["energy_j"] == pytest.approx(planned["total"]["energy_j"])
    assert last["sim_time_s"] == pytest.approx(planned["total"]["sim_time_s"])


def test_a_resumed_run_charges_no_client_a_second_time(tmp_path, unbroken):
    import shutil

    file, whole = unbroken
    shutil.copytree(whole, tmp_path / "run")
    for name in ("result.json", "checkpoints/round-0003", "metrics.parquet"):
        place = tmp_path / "run" / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    run(file, tmp_path / "run", resume=True)
    assert computed(tmp_path / "run", ["train"]) == computed(whole, ["train"])


def test_in_a_split_the_first_pass_of_a_clients_first_turn_encodes(tmp_path):
    split = {"kind": "split", "cut": "down_0", "may_send": ["text"], "tail": "out", "variant": "splitfed_v1"}
    changes = UNSEEN | ROUNDS | {"topology": split, "tuning": {"kind": "lora", "rank": 2}}
    file = tiny(tmp_path, changes)
    planned = plan(check(file))
    run(file, tmp_path / "run")
    encoded = SAMPLES * planned["encode_flops_per_sample"]
    for by_round in computed(tmp_path / "run", ["front"]).values():
        assert by_round[1][0] - by_round[1][1] == pytest.approx(encoded)
        assert by_round[2] == by_round[3] == [by_round[1][1]] * 2


def test_a_text_encoder_that_trains_is_no_part_of_encoding(tmp_path):
    """Its work is every step's then, and the autoencoder's alone is done once."""
    alone, both = (
        plan(check(tiny(tmp_path, {"tuning.targets": targets}))) for targets in ("kohya", "attention")
    )
    assert 0 < alone["encode_flops_per_sample"] < both["encode_flops_per_sample"]


def test_learners_of_pixels_encode_nothing(tmp_path):
    assert plan(check(garments(tmp_path)))["encode_flops_per_sample"] == 0
