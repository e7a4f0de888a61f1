import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.aggregation.accumulators import BOUND, ExactSum, Gathered
from fedray.executors.server import ServerWork
from fedray.transport.buffer import Layout
from tests.helpers import garments, job_of

SIZE = 40
PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def updates(n, dtype=torch.float32, seed=0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(SIZE, generator=g).to(dtype)
    return base, [(base.float() + scale * torch.randn(SIZE, generator=g)).to(dtype) for _ in range(n)]


def summed(base, local, samples, order=None, round_weight=None):
    total = ExactSum(SIZE, round_weight or sum(samples))
    for k in order if order is not None else range(len(local)):
        total.add(local[k], samples[k], k, base)
    return total


@pytest.fixture(scope="module")
def finish(tmp_path_factory):
    """The next model [SIZE], as a server makes it of the last one and of hosts' sums."""
    server = ServerWork(job_of(garments(tmp_path_factory.mktemp("server")))[1])

    def next_model(base, *sums):
        layout = Layout(("weights",), ((SIZE,),), PRECISIONS[base.dtype], SIZE)
        buffer, _ = server.aggregate(layout, base.view(torch.uint8).numpy(), {}, 1, 1, sums)
        return layout.flat(buffer)

    return next_model


@given(
    order=st.permutations(range(6)),
    cuts=st.sets(st.integers(1, 5)),
    seed=st.integers(0, 100),
    scale=st.sampled_from([1e-8, 1e-3, 1.0, 100.0]),
)
@settings(max_examples=60)
def test_any_order_and_any_grouping_give_the_same_bits(finish, order, cuts, seed, scale):
    base, local = updates(6, seed=seed, scale=scale)
    samples = [1, 4, 4, 7, 100, 3]
    straight = summed(base, local, samples)
    parts = [
        summed(base, local, samples, order[start:end])
        for start, end in itertools.pairwise([0, *sorted(cuts), 6])
    ]
    merged = ExactSum(SIZE, sum(samples))
    for part in parts:
        merged.merge(part)
    assert torch.equal(merged.total, straight.total)
    assert (merged.weight, merged.added) == (straight.weight, straight.added) == (sum(samples), 6)
    assert torch.equal(finish(base, *parts), finish(base, straight))


@given(n=st.integers(1, 8), seed=st.integers(0, 100), data=st.data())
@settings(max_examples=40)
def test_it_is_the_mean_weighted_by_samples(finish, n, seed, data):
    base, local = updates(n, seed=seed)
    samples = data.draw(st.lists(st.integers(1, 1000), min_size=n, max_size=n))
    total = summed(base, local, samples)
    mean = sum(w.double() * k for w, k in zip(local, samples, strict=True)) / sum(samples)
    assert (base.double() + total.total / total.weight - mean).abs().max() <= total.grid
    assert total.grid < 1e-8
    assert (finish(base, total).double() - mean).abs().max() < 1e-6


def test_an_update_and_a_model_with_the_one_it_started_from_are_summed_alike():
    base, (local,) = updates(1)
    models, changes = ExactSum(SIZE, 20), ExactSum(SIZE, 20)
    models.add(local, 4, 0, base)
    changes.add(local.double() - base.double(), 4, 0)
    assert torch.equal(models.total, changes.total)
    assert models.total.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_single_update_in_half_precision_passes_unchanged(finish, dtype):
    for scale in (1e-6, 1e-3, 1.0, 30.0):
        base, (local,) = updates(1, dtype, scale=scale)
        assert torch.equal(finish(base, summed(base, [local], [20])), local)


def test_nobody_leaves_the_global_model_as_it_was(finish):
    base, _ = updates(0)
    assert torch.equal(finish(base, ExactSum(SIZE, 20)), base)
    assert torch.equal(finish(base, ExactSum(SIZE, 20), ExactSum(SIZE, 20)), base)
    alone = finish(base, summed(base, [base + 1], [4], round_weight=20))
    assert not torch.equal(alone, base)
    assert torch.equal(
        finish(base, ExactSum(SIZE, 20), summed(base, [base + 1], [4], round_weight=20)), alone
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1100.0, -5000.0])
@pytest.mark.parametrize("from_base", [True, False])
def test_an_update_that_is_not_finite_or_too_large_is_refused_whole(bad, from_base):
    base, (local,) = updates(1)
    local = local.clone()
    local[7] = base[7] + bad
    total = ExactSum(SIZE, 20)
    with pytest.raises(ValueError, match=r"an update changes a weight by .*, expected less than 1024"):
        total.add(*((local, 4, 0, base) if from_base else (local - base, 4, 0)))
    assert (total.weight, total.added) == (0, 0)
    assert not total.total.any()


@given(weight=st.integers(1, 10_000_000))
def test_the_largest_sum_stays_exact_in_float64(weight):
    total = ExactSum(1, weight)
    assert BOUND * weight / total.grid <= 2.0**53
    assert math.log2(total.grid).is_integer()


def test_the_base_is_not_written_to(finish):
    base, local = updates(2)
    before = base.clone()
    finish(base, summed(base, local, [4, 4]))
    assert torch.equal(base, before)


def test_it_travels_as_it_is():
    import pickle

    base, local = updates(3)
    total = summed(base, local, [1, 2, 3], round_weight=20)
    arrived = pickle.loads(pickle.dumps(total))
    assert np.array_equal(arrived.total, total.total)
    assert (arrived.weight, arrived.round_weight, arrived.added, arrived.grid) == (6, 20, 3, total.grid)
    arrived.merge(summed(base, local, [1, 2, 3], round_weight=20))
    assert torch.equal(arrived.total, 2 * total.total)


# --- every update by itself


def gathered(local, samples, order):
    accumulator = Gathered(SIZE, sum(samples))
    for k in order:
        accumulator.add(local[k], samples[k], k)
    return accumulator


@given(order=st.permutations(range(6)), cuts=st.sets(st.integers(1, 5)), rows=st.sampled_from([1, 2]))
@settings(max_examples=30)
def test_gathered_updates_are_sorted_by_client_whoever_had_them_first(order, cuts, rows):
    _, local = updates(6)
    samples = [1, 4, 4, 7, 100, 3]
    parts = [
        gathered(local, samples, order[start:end]) for start, end in itertools.pairwise([0, *sorted(cuts), 6])
    ]
    whole = Gathered(SIZE, sum(samples))
    for part in parts:
        part.round_weight = sum(samples)
        whole.merge(part)
    result = whole.result(rows, slice(3, 9))
    expected = torch.stack([update.view(rows, -1)[:, 3:9] for update in local])
    assert torch.equal(result.values, expected)
    assert result.weights.tolist() == samples
    assert result.clients == tuple(range(6))
    assert (whole.weight, whole.added) == (sum(samples), 6)


def test_gathered_updates_are_fp32_copies_less_the_base():
    base, (local,) = updates(1, torch.float16)
    accumulator = Gathered(SIZE, 4)
    accumulator.add(local, 4, 0, base)
    local.zero_()
    _, (again,) = updates(1, torch.float16)
    result = accumulator.result(1, slice(None)).values[0, 0]
    assert result.dtype == torch.float32
    assert torch.equal(result, again.float() - base.float())
    assert Gathered.kept_bytes(SIZE, 3) == 3 * 4 * SIZE


def test_what_cannot_be_summed_is_not_gathered_either():
    accumulator = Gathered(SIZE, 4)
    with pytest.raises(ValueError, match="an update changes a weight by nan"):
        accumulator.add(torch.full((SIZE,), math.nan), 4, 0)
    assert accumulator.added == 0
