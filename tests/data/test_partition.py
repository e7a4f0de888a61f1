"""Who holds what: every sample dealt once, by the distributions of the papers; draws with replacement; the
census."""

import json
import re
from functools import cache
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fedray.checks import check
from fedray.data.census import census
from fedray.data.clients import partition
from fedray.data.partition import ByColumnPartition
from fedray.data.samples import Array
from fedray.scenario import Refused, ScenarioError
from fedray.scenario.partition import AnyPartition, ByLabel
from fedray.scenario.population import Population
from fedray.scenario.scenario import Scenario
from tests.helpers import ARTISTS, GARMENTS, garments, quickstart

SECTIONS = TypeAdapter(ByLabel)


@cache
def base():
    return Scenario.model_validate(json.loads(json.dumps(GARMENTS | {"network": quickstart()["network"]})))


def scenario(clients, kind, seed=0, **options):
    section = SECTIONS.validate_python({"kind": kind, **options})
    whole = base()
    data = whole.data.model_copy(update={"partition": section})
    return whole.model_copy(
        update={"population": Population(clients=clients, per_round=1), "data": data, "seed": seed}
    )


def samples(counts, mixed=0):
    """So many samples of each label, in no order."""
    labels = np.random.default_rng(mixed).permutation(np.repeat(np.arange(len(counts)), counts))
    return Array(
        lambda: np.zeros((len(labels), 1, 2, 2), np.uint8), labels, [f"label {k}" for k in range(len(counts))]
    )


def dealt(source, clients, kind, seed=0, **options):
    return partition(scenario(clients, kind, seed, **options), source)


def same(one, other):
    return len(one) == len(other) and all(np.array_equal(one[c], other[c]) for c in one)


def everything_once(held, n):
    return sorted(np.concatenate([held[c] for c in held]).tolist()) == list(range(n))


def mean_emd(source, held):
    return np.mean([d for d in census(source, held).emd if d is not None])


alphas = st.floats(0.05, 1000).map(lambda a: float(f"{a:.3g}"))
# enough of each for ten clients of three
label_counts = st.lists(st.integers(30, 80), min_size=1, max_size=6)


# --- dealt


@given(counts=label_counts, clients=st.integers(1, 30), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_iid_deals_every_sample_once_in_parts_that_differ_by_one(counts, clients, seed):
    source = samples(counts)
    held = dealt(source, clients, "iid", seed)
    assert list(held) == list(range(clients))
    assert everything_once(held, len(source))
    sizes = [len(held[c]) for c in held]
    assert max(sizes) - min(sizes) <= 1


@given(
    counts=label_counts,
    clients=st.integers(1, 10),
    alpha=alphas,
    least=st.integers(1, 3),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["dirichlet", "quantity"]),
)
@settings(max_examples=120)
def test_a_dirichlet_deals_every_sample_once_and_nobody_has_less_than_the_least(
    counts, clients, alpha, least, seed, kind
):
    source = samples(counts)
    options = {"alpha": alpha, "min_samples": least}
    try:
        held = dealt(source, clients, kind, seed, **options)
    except Refused as e:
        options["alpha"] = alpha_advised(e)
        assert options["alpha"] > alpha
        held = dealt(source, clients, kind, seed, **options)
    assert list(held) == list(range(clients))
    assert everything_once(held, len(source))
    assert all(len(held[c]) >= least for c in held)


@given(
    counts=label_counts, clients=st.integers(1, 15), per_client=st.integers(1, 2), seed=st.integers(0, 1000)
)
@settings(max_examples=60)
def test_shards_deal_every_sample_once_and_few_labels_to_each(counts, clients, per_client, seed):
    source = samples(counts)
    held, shards = dealt(source, clients, "shards", seed, per_client=per_client), clients * per_client
    assert everything_once(held, len(source))
    size = -(-len(source) // shards)
    assert all(per_client * (len(source) // shards) <= len(held[c]) <= per_client * size for c in held)
    rows = [len(set(source.labels[held[c]])) for c in held]
    # Samples sorted by label have a border less than labels, and each gives one shard one label more.
    assert sum(rows) <= shards + len(counts) - 1
    if min(counts) >= size - 1:  # no label fits between two others within a shard
        assert max(rows) <= 2 * per_client


@pytest.mark.parametrize("per_client", [1, 2, 5])
def test_shards_that_labels_fill_evenly_give_each_client_as_many_labels_at_most(per_client):
    source = samples([100] * 10)
    held = dealt(source, 20, "shards", per_client=per_client)
    for c in held:
        assert 1 <= len(set(source.labels[held[c]])) <= per_client
        assert len(held[c]) == 50


def test_a_clients_shards_are_any_two_not_neighbours():
    source = samples([100] * 10)
    held = dealt(source, 50, "shards")
    # 90 % where they are drawn at random
    assert np.mean([len(set(source.labels[held[c]])) == 2 for c in held]) > 0.6
    assert np.mean([len(set(source.labels[held[c]])) == 1 for c in held]) < 0.4


KINDS = {
    "iid": {},
    "iid with samples": {"samples": 20},
    "dirichlet": {"alpha": 1.0},
    "dirichlet with samples": {"alpha": 1.0, "samples": 20},
    "shards": {},
    "quantity": {"alpha": 5.0},
}


@pytest.mark.parametrize("case", KINDS)
def test_a_partition_is_the_seeds(case):
    source, kind = samples([40] * 5), case.split()[0]
    one = dealt(source, 10, kind, 1, **KINDS[case])
    assert same(one, dealt(source, 10, kind, 1, **KINDS[case]))
    assert not same(one, dealt(source, 10, kind, 2, **KINDS[case]))


@pytest.mark.parametrize("case", ["iid", "dirichlet", "quantity"])
def test_samples_of_a_label_are_dealt_in_no_order(case):
    source = samples([1000])
    held = dealt(source, 2, case, **{"alpha": 100.0} if case != "iid" else {})
    for c in held:
        assert abs(np.mean(held[c]) - 500) < 5 * 1000 / np.sqrt(12 * 400)
        assert np.diff(held[c]).max() > 3


# --- Dirichlet


def test_the_smaller_alpha_the_further_clients_are_from_the_population():
    source = samples([200] * 10)
    for options in ({}, {"samples": 400}):
        distances = [
            mean_emd(source, dealt(source, 20, "dirichlet", alpha=a, **options))
            for a in (0.1, 1.0, 10.0, 1e5)
        ]
        assert distances == sorted(distances, reverse=True)
        assert distances[0] > 1.0
        assert distances[-1] < 0.15  # and of 400 draws the noise alone is 0.12
    assert mean_emd(source, dealt(source, 20, "dirichlet", alpha=1e5)) < 0.05


def test_alone_with_a_label_of_ten_a_client_is_at_the_distance_of_eighteen_tenths():
    source = samples([50] * 10)
    held = dealt(source, 1000, "dirichlet", alpha=1e-3, samples=5)
    assert mean_emd(source, held) == pytest.approx(2 * (1 - 1 / 10), abs=0.03)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_a_labels_shares_are_spread_as_dir_alpha(alpha):
    """Of N clients each has in the mean 1 / N of a label, with variance (1 / N) (1 - 1 / N) / (N alpha +
    1)."""
    source, clients = samples([400] * 50), 10
    counts = np.array(
        census(source, dealt(source, clients, "dirichlet", alpha=alpha, allow_empty=True)).counts
    )
    shares = counts / 400
    assert np.allclose(shares.sum(0), 1)
    assert np.mean((shares - 1 / clients) ** 2) == pytest.approx(
        1 / clients * (1 - 1 / clients) / (clients * alpha + 1), rel=0.25
    )


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_sizes_are_spread_as_dir_alpha_and_labels_evenly_where_quantity_is_skewed(alpha):
    source, clients = samples([1000] * 2), 10
    sizes = np.array(
        [
            [
                len(part)
                for part in dealt(source, clients, "quantity", seed, alpha=alpha, allow_empty=True).values()
            ]
            for seed in range(60)
        ]
    )
    shares = sizes / len(source)
    assert np.mean((shares - 1 / clients) ** 2) == pytest.approx(
        1 / clients * (1 - 1 / clients) / (clients * alpha + 1), rel=0.25
    )
    found = census(source, dealt(source, clients, "quantity", alpha=alpha, allow_empty=True))
    for row in found.counts:
        assert abs(row[0] - row[1]) <= 5 * np.sqrt(sum(row) + 1)


@pytest.mark.parametrize("counts", [[100] * 5, [300, 100, 60, 30, 10]])
@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_with_samples_a_clients_mix_is_drawn_from_dir_alpha_k_p(alpha, counts):
    """Then a label's count is Dirichlet-multinomial: mean n p, variance n p (1 - p) (n + a) / (1 + a), where
    a = alpha K."""
    source, clients, n = samples(counts), 2000, 30
    drawn = np.array(census(source, dealt(source, clients, "dirichlet", alpha=alpha, samples=n)).counts)
    p, a = np.array(counts) / sum(counts), alpha * len(counts)
    variance = n * p * (1 - p) * (n + a) / (1 + a)
    assert (drawn.sum(1) == n).all()
    assert (np.abs(drawn.mean(0) - n * p) < 5 * np.sqrt(variance / clients)).all()
    assert drawn.var(0) == pytest.approx(variance, rel=0.3)


def test_with_samples_the_alpha_of_hsu_is_as_many_times_ours_as_there_are_labels():
    """Of theirs, a, two samples of a client have the same label with the chance sum_k p_k (a p_k + 1) / (a +
    1): 0.55 of ten labels and a = 1, which is 0.1 here."""
    source = samples([100] * 10)
    held = dealt(source, 4000, "dirichlet", alpha=0.1, samples=2)
    same_label = [source.labels[held[c][0]] == source.labels[held[c][1]] for c in held]
    assert np.mean(same_label) == pytest.approx(0.55, abs=0.04)


# --- drawn with replacement


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
@pytest.mark.parametrize("n", [7, 100_003])
def test_a_thousand_clients_draw_exactly_so_many_though_there_be_fewer_samples(kind, n):
    source = samples([n // 7] * 6 + [n - 6 * (n // 7)])
    held = dealt(source, 1000, kind, samples=12, **{"alpha": 0.5} if kind == "dirichlet" else {})
    assert len(held) == 1000
    assert all(held[c].dtype == np.int32 and held[c].shape == (12,) for c in held)
    drawn = np.concatenate([held[c] for c in held])
    assert drawn.min() >= 0
    assert drawn.max() < n
    if n == 7:
        assert set(drawn.tolist()) == set(range(7))
        if kind == "iid":
            assert (np.abs(np.bincount(drawn) - 12_000 / 7) < 5 * np.sqrt(12_000 * 6 / 49)).all()
    else:
        assert len(set(drawn.tolist())) > 10_000  # with replacement, 12,000 draws of 100,003 hit some 11,300
        assert len(set(drawn.tolist())) < 12_000
    assert len({tuple(held[c].tolist()) for c in held}) > 300


def test_within_a_label_any_sample_is_as_likely_to_be_drawn():
    source = samples([10, 40])
    held = dealt(source, 2000, "dirichlet", alpha=100.0, samples=50)
    times = np.bincount(np.concatenate([held[c] for c in held]), minlength=50)
    for label, expected in ((0, 2000), (1, 2000)):  # 100,000 draws, each sample 2,000 times
        assert (np.abs(times[source.labels == label] - expected) < 6 * np.sqrt(expected)).all()


def test_clients_that_hold_dealt_samples_hold_them_in_32_bits_and_in_order():
    for kind, options in (
        ("iid", {}),
        ("dirichlet", {"alpha": 1.0}),
        ("shards", {}),
        ("quantity", {"alpha": 5.0}),
    ):
        held = dealt(samples([40] * 5), 10, kind, **options)
        for c in held:
            assert held[c].dtype == np.int32
            assert (np.diff(held[c]) > 0).all()


# --- refused


def alpha_advised(refused):
    assert refused.key == "data.partition.alpha"
    (number,) = re.findall(r"at least (\S+) for \d+ clients", refused.expected)
    return float(number)


@pytest.mark.parametrize("least", [1, 5])
@pytest.mark.parametrize("kind", ["dirichlet", "quantity"])
def test_an_alpha_that_leaves_a_client_too_little_is_refused_with_one_that_would_do(kind, least):
    source = samples([100] * 4)
    with pytest.raises(
        Refused, match=rf"data.partition.alpha: got 0.01, .*{least} samples or more.*allow_empty: true"
    ) as refused:
        dealt(source, 20, kind, alpha=0.01, min_samples=least)
    held = dealt(source, 20, kind, alpha=alpha_advised(refused.value), min_samples=least)
    assert everything_once(held, 400)
    assert min(len(held[c]) for c in held) >= least


@pytest.mark.parametrize("kind", ["dirichlet", "quantity"])
def test_whoever_allows_empty_clients_gets_them(kind):
    source = samples([100] * 4)
    held = dealt(source, 20, kind, alpha=0.01, allow_empty=True)
    assert len(held) == 20
    assert everything_once(held, 400)
    assert min(len(held[c]) for c in held) == 0
    more_clients = dealt(samples([3]), 10, kind, alpha=1.0, allow_empty=True)
    assert len(more_clients) == 10
    assert everything_once(more_clients, 3)


@pytest.mark.parametrize(
    ("kind", "clients", "options"),
    [
        ("iid", 21, {}),
        ("dirichlet", 21, {"alpha": 100.0}),
        ("dirichlet", 7, {"alpha": 100.0, "min_samples": 3}),
        ("quantity", 21, {"alpha": 100.0}),
        ("quantity", 7, {"alpha": 100.0, "min_samples": 3}),
        ("shards", 11, {}),
        ("shards", 4, {"per_client": 6}),
    ],
)
def test_clients_that_would_need_more_samples_than_there_are_are_refused(kind, clients, options):
    with pytest.raises(
        Refused, match=r"population.clients: got 2\d parts of 20 samples, expected at most as many"
    ):
        dealt(samples([10, 10]), clients, kind, **options)


# --- the census


def test_the_census_counts_labels_and_measures_how_far_each_mix_is():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    source = Array(lambda: np.zeros((8, 1, 2, 2), np.uint8), labels, ["a", "b", "c", "d"])
    found = census(
        source,
        {0: np.array([0, 1, 4, 6]), 1: np.array([], np.int64), 2: np.array([2, 3]), 3: np.array([5, 7])},
    )
    assert found.labels == ["a", "b", "c", "d"]
    assert found.counts == [[2, 1, 1, 0], [0, 0, 0, 0], [2, 0, 0, 0], [0, 1, 1, 0]]
    assert found.emd == [0.0, None, pytest.approx(0.5 + 0.25 + 0.25), pytest.approx(0.5 + 0.25 + 0.25)]


@given(
    owners=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    seed=st.integers(0, 1000),
    names=st.integers(1, 5),
)
def test_the_distance_is_the_sum_over_labels_of_the_differences_of_frequencies(owners, seed, names):
    labels = np.random.default_rng(seed).integers(0, names, len(owners))
    source = Array(lambda: np.zeros((len(labels), 1, 2, 2), np.uint8), labels, [str(k) for k in range(names)])
    held = {c: np.flatnonzero(np.array(owners) == c).astype(np.int32) for c in range(6)}
    found = census(source, held)
    population = [sum(label == k for label in labels.tolist()) / len(labels) for k in range(names)]
    for c, mine in held.items():
        own = labels[mine].tolist()
        assert found.counts[c] == [own.count(k) for k in range(names)]
        if not own:
            assert found.emd[c] is None
        else:
            expected = sum(abs(own.count(k) / len(own) - p) for k, p in enumerate(population))
            assert found.emd[c] == pytest.approx(expected, abs=1e-6)
            assert 0 <= found.emd[c] <= 2
    json.dumps(found.__dict__)  # partition.json


# --- columns


class Rows(Array):
    """Samples that have one column."""

    values: ClassVar[list[str | int]] = []

    def column(self, name):
        return self.values


def with_column(values):
    rows = type("Columns", (Rows,), {"values": values})
    return rows(lambda: np.zeros((len(values), 1, 2, 2), np.uint8), np.zeros(len(values), int), ["all"])


@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=30)
    | st.lists(st.integers(-20, 20), min_size=1, max_size=30)
)
def test_each_value_of_a_column_is_a_client_in_the_order_of_the_values(values):
    names = sorted(set(values))
    held = by_column(with_column(values), len(names))
    assert everything_once(held, len(values))
    assert [[values[i] for i in held[k]] for k in range(len(names))] == [[n] * values.count(n) for n in names]


def by_column(source, clients):
    section = TypeAdapter(AnyPartition).validate_python({"kind": "column", "column": "writer"})
    return ByColumnPartition(section).deal(source, clients, np.random.default_rng(0))


def test_a_column_that_does_not_fit_the_clients_is_refused():
    with pytest.raises(
        Refused, match=r"got 3 for 2 values of writer \('ann', 'ben'\), expected 2, one a value"
    ):
        by_column(with_column(["ann", "ben", "ann"]), 3)
    with pytest.raises(
        Refused, match=r"data.partition.column: got 'writer', whose values are of int and str"
    ):
        by_column(with_column(["ann", 7]), 2)


def test_a_column_is_refused_for_data_without_any(tmp_path):
    data = {**ARTISTS["data"], "partition": {"kind": "column", "column": "writer"}}
    with pytest.raises(ScenarioError, match=r"data.partition.kind: got column for image_folder, expected"):
        check(garments(tmp_path, {**ARTISTS, "data": data}))
