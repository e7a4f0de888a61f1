"""What the clients' mean and the augmented model count: searched for on a line, known or one's own."""

import math

import pytest
import torch

from fedray.augmentation.weighting import HeldOut, LineSearch, Weighting, WeightingContext
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from fedray.scenario.weighting import HeldOut as HeldOutSection
from fedray.scenario.weighting import LineSearch as Section
from tests.helpers import ARTISTS, broken_off, garments, job_of, rows, run

PAINT = {"inference_steps": 2, "per_class": 1, "at_most": 2, "batch_size": 8}
SEARCH = {"kind": "line_search", "images": 100, "smoothing": 0.5, "every": 2}
SEARCHED = {"augmentation": PAINT | {"weighting": SEARCH}, "training.rounds": 3}


def kappa_2(measure, before=None, round_number=1, flops=0.0, **section):
    """Of clients at 0 and an augmented model at 1, of one number each."""
    made = LineSearch(Section(kind="line_search", **section))
    return made.kappas(
        WeightingContext(
            round_number=round_number,
            rounds=10,
            clients=torch.tensor([0.0]),
            augmented=torch.tensor([1.0]),
            kappa_2=before,
            measure=measure,
            augmented_flops=lambda: flops,
        )
    )[1]


def parabola(numbers):
    """The loss is least at 0.3."""
    return {"loss": (float(numbers) - 0.3) ** 2, "accuracy": 0.5}


def test_a_line_search_takes_the_mix_with_the_least_loss():
    tried = []
    found = kappa_2(lambda numbers: tried.append(float(numbers)) or parabola(numbers))
    assert found == pytest.approx(0.3)
    assert tried == pytest.approx([i / 10 for i in range(11)])
    assert kappa_2(parabola, mixes=3) == pytest.approx(0.5)  # of 0, 0.5 and 1
    assert kappa_2(parabola, criterion="accuracy") == 0  # of equals the least
    peak = kappa_2(lambda x: {"loss": 0.0, "accuracy": 1 - abs(float(x) - 0.7)}, criterion="accuracy")
    assert peak == pytest.approx(0.7)
    assert kappa_2(lambda x: {"loss": math.nan if float(x) < 0.85 else float(x)}) == 0.9


def test_the_step_to_the_best_mix_is_smoothed_but_for_the_first():
    assert kappa_2(parabola, smoothing=0.75) == pytest.approx(0.3)
    assert kappa_2(parabola, before=0.7, smoothing=0.75) == pytest.approx(0.75 * 0.7 + 0.25 * 0.3)


def test_between_searches_nothing_is_evaluated_and_the_weight_stays():
    def nothing(numbers):
        raise AssertionError("evaluated")

    assert kappa_2(nothing, before=0.7, round_number=3, every=3) == 0.7
    assert kappa_2(parabola, before=0.7, round_number=4, every=3) == pytest.approx(0.3)


def test_a_price_of_compute_moves_the_best_mix_to_the_clients():
    # (k - 0.3)^2 + price * TFLOP * k is least at 0.3 - price * TFLOP / 2
    assert kappa_2(parabola, tflop_price=0.1, flops=2e12) == pytest.approx(0.2)
    assert kappa_2(parabola, tflop_price=0.1, flops=6e12) == 0


def test_accuracies_of_nothing_right_weigh_the_same():
    context = WeightingContext(1, 1, torch.zeros(1), torch.ones(1), None, lambda x: {"accuracy": 0.0}, float)
    assert HeldOut(HeldOutSection(kind="held_out")).kappas(context) == (0.5, 0.5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("searched") / "run"
    file = garments(out.parent, SEARCHED)
    return file, out, run(file, out)


def test_the_servers_evaluations_are_counted_in_the_rounds_that_search(whole, tmp_path):
    from fedray.planning.workload import measure

    loaded, job = job_of(whole[0])
    flops = {e["round"]: e["flops"] for e in rows(whole[1] / "timeline.jsonl") if e["event"] == "aggregate"}
    assert flops[1] == flops[3] > flops[2]
    work = measure(job.scenario, job.folder, job.dataset)
    assert flops[1] - flops[2] == pytest.approx(11 * 100 * work.evaluate_flops_per_sample)
    # a convolution of 32 filters of 3 x 3 over 26 x 26, one of 64 over 11 x 11, and two dense layers
    products = 26**2 * 32 * 9 + 11**2 * 64 * 32 * 9 + 64 * 5 * 5 * 128 + 128 * 10
    assert work.evaluate_flops_per_sample == pytest.approx(2 * products, rel=0.01)
    assert plan(loaded)["total"]["energy_j"] == pytest.approx(whole[2]["final"]["energy_j"])


def test_a_resumed_run_goes_on_from_the_weight_that_it_had(whole, tmp_path):
    first, second, third = (row["kappa_2"] for row in rows(whole[1] / "metrics.jsonl"))
    assert first == second
    best = 2 * third - second  # of a step smoothed by half
    assert best * 10 == pytest.approx(round(best * 10), abs=1e-6)
    out = broken_off(whole[1], tmp_path / "run", 3)
    assert run(None, out, resume=True)["weights_sha256"] == whole[2]["weights_sha256"]
    assert [row["kappa_2"] for row in rows(out / "metrics.jsonl")] == [first, second, third]


def test_a_failed_augmented_model_leaves_the_weight_that_it_had(whole):
    import dataclasses

    import numpy as np

    from fedray.augmentation.server import AugmentationServer
    from fedray.executors.companion import COMPANION_KAPPA

    job = job_of(whole[0])[1]
    work = AugmentationServer(job, torch.device("cpu"))
    buffer, layout, _ = work.client.initial()
    augmented, report = work.train(2, np.arange(10), buffer, {COMPANION_KAPPA: np.array(0.4)})
    failed = dataclasses.replace(report, failure="its loss is nan")
    _, state, told = work.mix(layout, 2, buffer, {}, (augmented, failed))
    assert (float(state[COMPANION_KAPPA]), told.metrics["kappa_2"]) == (0.4, 0.0)


def test_a_weighting_of_ones_own_sees_what_the_last_round_weighed(tmp_path):
    (tmp_path / "halving.py").write_text(
        "import fedray\n\n\n"
        "class Halving(fedray.Weighting):\n"
        "    class Section(fedray.Weighting.Section):\n"
        "        keeps_kappa = True\n\n"
        "    def kappas(self, context):\n"
        "        second = 0.5 if context.kappa_2 is None else context.kappa_2 / 2\n"
        "        return 1 - second, second\n"
    )
    assert issubclass(HeldOut, Weighting)
    changes = SEARCHED | {"augmentation": PAINT | {"weighting": {"kind": "halving:Halving"}}}
    run(garments(tmp_path, changes), tmp_path / "run")
    assert [row["kappa_2"] for row in rows(tmp_path / "run" / "metrics.jsonl")] == [0.5, 0.25, 0.125]


REFUSED = {
    "an image folder": (
        ARTISTS | {"augmentation": PAINT | {"weighting": SEARCH}},
        "line_search for an image",
    ),
    "pictures at clients": (
        {"augmentation": PAINT | {"at": "client", "weighting": SEARCH}},
        "client with weights of an augmented model",
    ),
    "a split": ({"topology": {"kind": "split", "cut": "conv2"}}, "one for classifier over a split"),
    "one mix": ({"augmentation": PAINT | {"weighting": SEARCH | {"mixes": 1}}}, "got 1"),
    "all of the past": ({"augmentation": PAINT | {"weighting": SEARCH | {"smoothing": 1.0}}}, "got 1.0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_searched_is_refused(what, tmp_path):
    changes, got = REFUSED[what]
    with pytest.raises(ScenarioError) as refused:
        job_of(garments(tmp_path, SEARCHED | changes))
    assert any(got in line for line in refused.value.problems)
