import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.aggregation.fedavg import FedAvg

SIZE = 40


def updates(n, dtype=torch.float32, seed=0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(SIZE, generator=g).to(dtype)
    return base, [(base.float() + scale * torch.randn(SIZE, generator=g)).to(dtype) for _ in range(n)]


@given(
    order=st.permutations(range(6)),
    cuts=st.sets(st.integers(1, 5)),
    seed=st.integers(0, 100),
    scale=st.sampled_from([1e-8, 1e-3, 1.0, 100.0]),
)
@settings(max_examples=60)
def test_any_order_and_any_grouping_give_the_same_bits(order, cuts, seed, scale):
    base, local = updates(6, seed=seed, scale=scale)
    samples = [1, 4, 4, 7, 100, 3]
    straight = FedAvg.zero(SIZE, sum(samples))
    for k in range(6):
        straight.add(local[k], base, samples[k])

    edges = [0, *sorted(cuts), 6]
    merged = FedAvg.zero(SIZE, sum(samples))
    for start, end in itertools.pairwise(edges):
        part = FedAvg.zero(SIZE, sum(samples))
        for k in order[start:end]:
            part.add(local[k], base, samples[k])
        merged.merge(part)
    assert torch.equal(merged.total, straight.total)
    assert merged.samples == straight.samples
    assert torch.equal(merged.finish(base), straight.finish(base))


@given(n=st.integers(1, 8), seed=st.integers(0, 100), data=st.data())
@settings(max_examples=40)
def test_it_is_the_mean_weighted_by_samples(n, seed, data):
    base, local = updates(n, seed=seed)
    samples = data.draw(st.lists(st.integers(1, 1000), min_size=n, max_size=n))
    total = FedAvg.zero(SIZE, sum(samples))
    for w, k in zip(local, samples, strict=True):
        total.add(w, base, k)
    mean = sum(w.double() * k for w, k in zip(local, samples, strict=True)) / sum(samples)
    assert (base.double() + total.total / total.samples - mean).abs().max() <= total.grid
    assert total.grid < 1e-8
    assert (total.finish(base).double() - mean).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_single_update_in_half_precision_passes_unchanged(dtype):
    for scale in (1e-6, 1e-3, 1.0, 30.0):
        base, (local,) = updates(1, dtype, scale=scale)
        total = FedAvg.zero(SIZE, 20)
        total.add(local, base, 20)
        assert torch.equal(total.finish(base), local)


def test_nobody_leaves_the_global_model_as_it_was():
    base, _ = updates(0)
    assert torch.equal(FedAvg.zero(SIZE, 20).finish(base), base)
    empty, some = FedAvg.zero(SIZE, 20), FedAvg.zero(SIZE, 20)
    some.add(base + 1, base, 4)
    before = some.finish(base)
    some.merge(empty)
    assert torch.equal(some.finish(base), before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1100.0, -5000.0])
def test_an_update_that_is_not_finite_or_too_large_is_refused_whole(bad):
    base, (local,) = updates(1)
    local = local.clone()
    local[7] = base[7] + bad
    total = FedAvg.zero(SIZE, 20)
    with pytest.raises(ValueError, match=r"an update changes a weight by .*, expected less than 1024"):
        total.add(local, base, 4)
    assert total.samples == 0
    assert not total.total.any()


@given(samples=st.integers(1, 10_000_000))
def test_the_largest_sum_stays_exact_in_float64(samples):
    total = FedAvg.zero(1, samples)
    assert FedAvg.BOUND * samples / total.grid <= 2.0**53
    assert math.log2(total.grid).is_integer()


def test_the_base_is_not_written_to():
    base, local = updates(2)
    before = base.clone()
    total = FedAvg.zero(SIZE, 8)
    for w in local:
        total.add(w, base, 4)
    total.finish(base)
    assert torch.equal(base, before)
