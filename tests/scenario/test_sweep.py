"""`sweep.grid` and `sweep.seeds`: which runs there are, what they are called, and what is refused."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.scenario import ScenarioError
from fedray.scenario.base import NAME_PATTERN
from fedray.scenario.load import load_text
from fedray.scenario.sweep_runs import run_names
from tests.helpers import tiny


def swept(folder, sweep):
    """A scenario with a sweep as its last lines, from line 1 of `sweep:` on, and where that line is."""
    file = tiny(folder)
    text = file.read_text()
    return load_text(f"{text}sweep:\n{sweep}", file), text.count("\n") + 1


def test_every_variant_has_every_combination_of_the_grid_under_every_seed(tmp_path):
    loaded, _ = swept(
        tmp_path,
        "  variants: {a: {}, b: {training.rounds: 3}}\n"
        "  grid: {training.optimizer.learning_rate: [1.0e-4, 1.0e-3], tuning.rank: [4, 8]}\n"
        "  seeds: [5, 7]\n",
    )
    assert list(loaded.variants) == [
        f"{variant}_learning_rate-{rate}_rank-{rank}_seed-{seed}"
        for variant in "ab"
        for rate in ("0.0001", "0.001")
        for rank in (4, 8)
        for seed in (5, 7)
    ]
    one = loaded.variants["b_learning_rate-0.001_rank-4_seed-7"].scenario
    assert (one.training.rounds, one.training.optimizer.learning_rate, one.tuning.rank) == (3, 1e-3, 4)
    assert (one.seed, one.sweep) == (7, None)


def test_a_number_of_seeds_counts_from_the_scenarios_own(tmp_path):
    file = tiny(tmp_path, {"seed": 3, "sweep": {"seeds": 2}})
    variants = load_text(file.read_text(), file).variants
    assert {name: one.scenario.seed for name, one in variants.items()} == {"seed-3": 3, "seed-4": 4}


def test_the_resolved_scenario_has_the_same_runs_wherever_it_lies(tmp_path):
    (tmp_path / "texts").mkdir()
    sections = "[{kind: lora, rank: 2}, {kind: full}, null]"
    grid = f"  grid: {{aggregation: [{{kind: median}}, {{kind: fedavg}}], tuning: {sections[:-7]}]}}\n"
    loaded, _ = swept(tmp_path, f"{grid}  variants: {{x: {{data.path: 'shipped:ink'}}}}\n  seeds: 2\n")
    assert next(iter(loaded.variants)) == "x_aggregation-median_tuning-lora_seed-0"
    again = load_text(loaded.resolved(), tmp_path / "elsewhere" / "scenario.yaml")
    assert {k: v.scenario for k, v in again.variants.items()} == {
        k: v.scenario for k, v in loaded.variants.items()
    }


VALUES = st.one_of(
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text(max_size=80),
    st.fixed_dictionaries({"kind": st.text(max_size=5)}),
    st.lists(st.integers(), max_size=2),
)


@settings(max_examples=25)
@given(
    variants=st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,30}", fullmatch=True), max_size=3, unique=True),
    grid=st.dictionaries(
        st.from_regex(r"[a-z_]{1,9}(\.[a-z_]{1,9}){0,3}", fullmatch=True),
        st.lists(VALUES, min_size=1, max_size=4, unique_by=repr),
        max_size=4,
    ),
    seeds=st.lists(st.integers(-5, 2**31), max_size=3, unique=True),
)
def test_names_of_runs_are_names_of_folders(variants, grid, seeds):
    names = run_names(variants or [""], grid, seeds)
    count = max(1, len(variants)) * max(1, len(seeds))
    for values in grid.values():
        count *= len(values)
    assert len(names) == count
    if any(names):
        assert all(re.fullmatch(NAME_PATTERN, name) for name in names)


BAD = [
    ("  {}\n", 0, "sweep: got neither variants, nor a grid, nor seeds, expected at least one of them"),
    ("  grid: {}\n", 1, "sweep.grid: got 0 of them, expected at least 1"),
    ("  grid:\n    tuning.rank: []\n", 2, "sweep.grid.tuning.rank: got 0 of them, expected at least 1"),
    ("  grid:\n    tuning.rank: 4\n", 2, "sweep.grid.tuning.rank: got 4, expected a list"),
    (
        "  grid:\n    tuning.rank: [4, 0]\n  seeds: 3\n",
        2,
        "tuning.rank: got 0, expected at least 1 (in the run rank-0_seed-0 and 2 others)",
    ),
    (
        "  grid:\n    training.rounds: [2, 3]\n    tuning.rnk: [4]\n",
        3,
        "tuning.rnk: got an unknown key, expected rank (did you mean it?)"
        " (in the run rounds-2_rnk-4 and 1 other)",
    ),
    (
        "  grid:\n    tuning.rank: [4, 4]\n",
        2,
        "sweep.grid.tuning.rank: got 4 twice, expected each value once",
    ),
    ("  seeds: [1, 2, 1]\n", 1, "sweep.seeds: got 1 twice, expected each seed once"),
    (
        "  grid:\n    seed: [1, 2]\n  seeds: 2\n",
        2,
        "sweep.grid.seed: got seed beside sweep.seeds, expected one of them",
    ),
    (
        "  variants: {a: {tuning.rank: 2}}\n  grid:\n    tuning: [{kind: full}]\n",
        3,
        "sweep.grid.tuning: got a key that takes the place of what sweep.variants.a sets, expected another or"
        " a part of it",
    ),
    (
        "  variants: {v: {}, v_name-a: {}}\n  grid: {data.name: [b, a_name-b]}\n",
        0,
        "sweep: got two runs called v_name-a_name-b, expected variants with names that tell them apart",
    ),
    (
        f"  grid: {{training.rounds: {list(range(1, 31))}}}\n  seeds: 40\n",
        0,
        "sweep: got 1,200 runs (30 combinations × 40 seeds), expected at most 1,000",
    ),
    (
        "  variants:\n    result.json: {}\n",
        2,
        "sweep.variants.result.json: got the name of a file in the sweep's own folder, expected another",
    ),
]


@pytest.mark.parametrize(("sweep", "line", "problem"), BAD)
def test_a_mistake_in_a_sweep_is_one_line_where_it_stands(tmp_path, sweep, line, problem):
    with pytest.raises(ScenarioError) as refused:
        swept(tmp_path, sweep)
    file = tmp_path / "tiny.yaml"
    assert refused.value.problems == [f"{file}:{file.read_text().count(chr(10)) + 1 + line}: {problem}"]
