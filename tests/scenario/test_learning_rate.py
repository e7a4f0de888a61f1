"""Learning-rate schedules against torch's and transformers' own, FlowerTune's formula, and bad input."""

import math

import pytest
import torch
from pydantic import TypeAdapter
from torch.optim import lr_scheduler

from fedray.scenario import ScenarioError
from fedray.scenario.learning_rate import Schedule
from tests.helpers import garments, job_of

RATE = 5e-5
OPTIMIZER = {"kind": "adamw", "learning_rate": RATE}


def rates(schedule, length):
    """The learning rates at so many places."""
    section = TypeAdapter(Schedule).validate_python(schedule)
    return [RATE * section.factor(place, length, RATE) for place in range(length)]


def stepped(made, length):
    """Those of a scheduler over an optimizer."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = made(optimizer)
    result = []
    for _ in range(length):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return result


def transformers_own(name, **options):
    def made(optimizer, length):
        from transformers.optimization import get_scheduler

        warmup = options.pop("warmup", 0)
        return get_scheduler(name, optimizer, warmup, length, scheduler_specific_kwargs=options)

    return made


def torchs_own(kind, **options):
    return lambda optimizer, length: kind(optimizer, **{k: v or length for k, v in options.items()})


def warmed_up(optimizer, length):
    """By equal steps that begin above 0, then two drops."""
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / 5, total_iters=4)
    drops = lr_scheduler.MultiStepLR(optimizer, [3, 7], gamma=0.3)
    return lr_scheduler.SequentialLR(optimizer, [rise, drops], [4])


ORACLES = {
    "constant": ({"kind": "constant"}, transformers_own("constant")),
    "constant with warm-up": (
        {"kind": "constant", "over": "steps", "warmup": 5},
        transformers_own("constant_with_warmup", warmup=5),
    ),
    "linear": ({"kind": "linear", "over": "steps", "warmup": 3}, transformers_own("linear", warmup=3)),
    "cosine": ({"kind": "cosine", "over": "steps", "warmup": 3}, transformers_own("cosine", warmup=3)),
    "cosine to a least rate": (
        {"kind": "cosine", "final": 1e-6, "warmup": 2, "warmup_from": 0.0},
        transformers_own("cosine_with_min_lr", warmup=2, min_lr=1e-6),
    ),
    "cosine with restarts": (
        {"kind": "cosine_with_restarts", "over": "steps", "warmup": 0.1, "cycles": 3},
        transformers_own("cosine_with_restarts", warmup=2, num_cycles=3),
    ),
    "polynomial": (
        {"kind": "polynomial", "final": 1e-7, "power": 2, "warmup": 4, "over": "steps"},
        transformers_own("polynomial", warmup=4, lr_end=1e-7, power=2),
    ),
    "torch's linear": (
        {"kind": "linear", "final": RATE / 10},
        torchs_own(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.1, total_iters=None),
    ),
    "torch's cosine": (
        {"kind": "cosine", "final": 1e-6},
        torchs_own(lr_scheduler.CosineAnnealingLR, T_max=None, eta_min=1e-6),
    ),
    "torch's step": (
        {"kind": "step", "step_size": 6, "gamma": 0.5},
        torchs_own(lr_scheduler.StepLR, step_size=6, gamma=0.5),
    ),
    "torch's milestones behind a warm-up of rounds": (
        {"kind": "step", "milestones": [3, 7], "gamma": 0.3, "warmup": 4},
        warmed_up,
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize(("schedule", "made"), ORACLES.values(), ids=ORACLES)
def test_rates_are_those_of_torch_and_transformers(schedule, made):
    expected = stepped(lambda optimizer: made(optimizer, 20), 20)
    assert rates(schedule, 20) == pytest.approx(expected, rel=1e-12, abs=1e-18)


def test_counted_from_one_a_cosine_over_rounds_is_flowertunes():
    def cosine_annealing(current_round):  # as its clients compute it, in rounds 1 to 200
        return 1e-6 + 0.5 * (RATE - 1e-6) * (1 + math.cos(math.pi * current_round / 200))

    ours = rates({"kind": "cosine", "final": 1e-6, "first": 1}, 200)
    assert ours == pytest.approx([cosine_annealing(t) for t in range(1, 201)], rel=1e-12)
    assert ours[-1] == pytest.approx(1e-6)


REFUSED = {
    "a warm-up longer than the rounds": (
        {"kind": "cosine", "warmup": 4},
        "schedule.warmup: got 4, expected fewer than the schedule's 4 rounds",
    ),
    "a share that leaves nothing": (
        {"kind": "cosine", "warmup": 0.9},
        "schedule.warmup: got 4, expected fewer than the schedule's 4 rounds",
    ),
    "part of a round": ({"kind": "linear", "warmup": 1.5}, "expected a whole number, or a share below 1"),
    "a milestone beyond the rounds": (
        {"kind": "step", "milestones": [2, 9]},
        "schedule.milestones.1: got 9, expected fewer than the schedule's 4 rounds",
    ),
    "milestones that fall": (
        {"kind": "step", "milestones": [3, 2]},
        "got [3, 2], expected numbers that rise",
    ),
    "a drop that never comes": (
        {"kind": "step", "step_size": 3, "over": "steps"},
        "schedule.step_size: got 3, expected fewer than the schedule's 3 steps",
    ),
    "no drop at all": ({"kind": "step"}, "got neither of step_size and milestones, expected one of them"),
    "a schedule past its end": (
        {"kind": "cosine", "rounds": 3},
        "schedule.rounds: got 3, expected at least training.rounds, 4: past its end a schedule has no rate",
    ),
    "rounds of steps": ({"kind": "cosine", "rounds": 9, "over": "steps"}, "got 9 over steps, expected none"),
    "a rate that rises": (
        {"kind": "linear", "final": 1e-3},
        "schedule.final: got 0.001, expected at most training.optimizer.learning_rate, 5e-05",
    ),
    "a first round that learns nothing": (
        {"kind": "linear", "warmup": 2, "warmup_from": 0.0},
        "schedule.warmup_from: got a learning rate of 0 in round 1, expected more than 0",
    ),
    "a last round that learns nothing": (
        {"kind": "linear", "first": 1},
        "schedule.final: got a learning rate of 0 in round 4, expected more than 0",
    ),
}


def training(schedule, **more):
    optimizer = {"kind": "adamw", "learning_rate": RATE}
    return {"training": {"rounds": 4, "batch_size": 8, "optimizer": optimizer, "schedule": schedule} | more}


@pytest.mark.parametrize(("schedule", "message"), REFUSED.values(), ids=REFUSED)
def test_a_schedule_past_its_end_is_refused_with_its_line(schedule, message, tmp_path):
    with pytest.raises(ScenarioError) as refused:
        job_of(garments(tmp_path, training(schedule, local_steps=3)))
    assert message in str(refused.value)


def test_numbers_of_steps_need_local_updates_of_a_known_number(tmp_path):
    schedule = {"kind": "linear", "over": "steps", "warmup": 2}
    expected = "got 2 steps of local epochs, expected training.local_steps, or a share below 1"
    with pytest.raises(ScenarioError, match=expected):
        job_of(garments(tmp_path, training(schedule, local_epochs=1)))
    job_of(garments(tmp_path, training(schedule | {"warmup": 0.2}, local_epochs=1)))


def test_a_run_goes_on_past_its_last_round_only_where_its_schedule_named_them(tmp_path):
    def fixed(schedule):
        return job_of(garments(tmp_path, training(schedule, local_steps=3)))[0].scenario.training.fixed_rounds

    assert "cosine with --rounds" in str(fixed({"kind": "cosine"}))
    may = ({"kind": "cosine", "rounds": 9}, {"kind": "step", "step_size": 2}, {"kind": "constant"})
    assert [fixed(schedule) for schedule in (*may, {"kind": "linear", "over": "steps"})] == [None] * 4
