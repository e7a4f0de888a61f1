"""Updates as bytes: their number, what is lost on the way, and that error feedback brings it back."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedray.scenario.aggregation import FedAvg
from fedray.scenario.transforms import Clip, Quantize, RandomK, TopK
from fedray.transport import hooks
from fedray.transport.compression import codecs
from fedray.transport.compression import hooks as made

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
LEVELS = {8: 127, 4: 7}  # symmetric around zero


def encode(transforms, update, dtype, seed):
    return hooks.encode(codecs(transforms), update, dtype, seed)


def decode(transforms, data, n, dtype, seed):
    return hooks.decode(codecs(transforms), data, n, dtype, seed)


def encoded_bytes(transforms, n, itemsize):
    return hooks.encoded_bytes(codecs(transforms), n, itemsize)


def feeds_back(transforms):
    return FedAvg(transforms=transforms).feeds_back


def clip(transforms, update):
    return hooks.HookChain(made(transforms), torch.float32).on_client(update, hooks.HookContext(0, 1, 0))


def sent_through(transforms, update, dtype, seed):
    """What arrives of a client's update, and what of it does not."""
    context = hooks.HookContext(seed, 1, 0)
    arrived = hooks.HookChain(made(transforms), dtype, feeds_back=True).through(update, context)
    return arrived, context.kept[hooks.UNSENT]


def top_k(fraction, **options):
    return TopK(kind="top_k", fraction=fraction, **options)


def random_k(fraction, **options):
    return RandomK(kind="random_k", fraction=fraction, **options)


def quantize(bits, **options):
    return Quantize(kind="quantize", bits=bits, **options)


def numbers(n, seed=0, scale=1.0):
    return scale * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def distinct(n, seed):
    """No two magnitudes are alike, and none is zero."""
    g = torch.Generator().manual_seed(seed)
    return (torch.randperm(n, generator=g) + 1.0) / n * (2.0 * torch.randint(2, (n,), generator=g) - 1)


def through(transforms, update, dtype=torch.float32, seed=0):
    """What arrives of an update."""
    return decode(transforms, encode(transforms, update, dtype, seed), len(update), dtype, seed)


fractions = st.one_of(st.floats(1e-4, 1), st.sampled_from([1e-3, 1 / 32, 0.01, 0.5, 1.0]))
sparse = st.builds(lambda make, fraction: make(fraction), st.sampled_from([top_k, random_k]), fractions)
quantized = st.builds(
    lambda bits, block: quantize(bits, block=block), st.sampled_from([8, 4]), st.integers(1, 2000)
)
chains = st.tuples(
    st.just([]) | st.just([Clip(kind="clip", norm=1.0)]),
    st.just([]) | sparse.map(lambda t: [t]),
    st.just([]) | quantized.map(lambda t: [t]),
).map(lambda parts: list(itertools.chain(*parts)))


# --- bytes


@given(
    transforms=chains, n=st.integers(1, 3000), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 2**63 - 1)
)
@example(transforms=[top_k(1e-4)], n=1, dtype=torch.float16, seed=0)
@example(transforms=[quantize(4)], n=1, dtype=torch.float32, seed=0)
@example(transforms=[top_k(0.5), quantize(4, block=7)], n=1001, dtype=torch.float32, seed=0)
# both ways of packing places are as long
@example(transforms=[top_k(1 / 32)], n=2048, dtype=torch.float32, seed=0)
@settings(max_examples=100)
def test_as_many_bytes_are_made_as_were_foretold_and_they_hold_the_update(transforms, n, dtype, seed):
    update = numbers(n, seed % 1000)
    data = encode(transforms, update, dtype, seed)
    assert data.dtype == np.uint8
    assert data.shape == (encoded_bytes(transforms, n, dtype.itemsize),)
    arrived = decode(transforms, data, n, dtype, seed)
    assert arrived.shape == (n,)
    assert arrived.dtype == torch.float32
    assert arrived.isfinite().all()


@given(
    n=st.integers(1, 2000), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 1000), clipped=st.booleans()
)
@settings(max_examples=40)
def test_an_update_that_is_neither_thinned_out_nor_quantized_is_sent_in_its_own_format(
    n, dtype, seed, clipped
):
    transforms, update = [Clip(kind="clip", norm=1.0)] * clipped, numbers(n, seed)
    data = encode(transforms, update, dtype, seed)
    assert len(data) == n * dtype.itemsize
    assert torch.equal(decode(transforms, data, n, dtype, seed), update.to(dtype).float())


@pytest.mark.parametrize(
    ("transforms", "n", "expected"),
    [
        ([top_k(0.001)], 100_000, 100 * 4 + 100 * 4),  # 32 bits a place, and the number
        ([top_k(0.1)], 100_000, 100_000 // 8 + 10_000 * 4),  # a bit a number, where that is less
        ([random_k(0.1)], 100_000, 10_000 * 4),  # the receiver draws the places itself
        ([quantize(8)], 10_240, 10_240 + 10 * 4),
        ([quantize(4)], 10_240, 5_120 + 10 * 4),
        ([quantize(4)], 1, 1 + 4),
        ([quantize(4, block=100)], 201, 101 + 3 * 4),
        ([random_k(0.1), quantize(4)], 10_240, 512 + 4),
        ([top_k(0.1), quantize(8)], 10_240, 1_280 + 1_024 + 4),
    ],
)
def test_an_update_costs_its_places_its_numbers_and_a_scale_a_block(transforms, n, expected):
    assert encoded_bytes(transforms, n, 4) == expected


@given(transforms=chains, n=st.integers(1, 500), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_the_same_seed_makes_the_same_bytes_and_the_update_stays_as_it_was(transforms, n, seed):
    update = numbers(n, seed)
    before = update.clone()
    first, second = (encode(transforms, update, torch.float32, seed) for _ in range(2))
    assert np.array_equal(first, second)
    assert torch.equal(update, before)


# --- thinned out


@given(n=st.integers(1, 3000), fraction=fractions, seed=st.integers(0, 1000), dtype=st.sampled_from(DTYPES))
@settings(max_examples=50)
def test_top_k_keeps_the_largest_magnitudes_and_nothing_else(n, fraction, seed, dtype):
    update = distinct(n, seed)
    k = max(1, round(fraction * n))
    arrived = through([top_k(fraction)], update, dtype)
    largest = torch.tensor(sorted(range(n), key=lambda i: -abs(float(update[i])))[:k])
    expected = torch.zeros(n)
    expected[largest] = update[largest].to(dtype).float()
    assert torch.equal(arrived, expected)


@given(
    values=st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0]), min_size=1, max_size=200),
    fraction=fractions,
)
@settings(max_examples=40)
def test_among_equal_magnitudes_top_k_keeps_as_many_as_it_may(values, fraction):
    update = torch.tensor(values)
    k = max(1, round(fraction * len(values)))
    arrived = through([top_k(fraction)], update)
    assert sorted(arrived.abs().tolist(), reverse=True)[:k] == sorted(update.abs().tolist(), reverse=True)[:k]
    assert (arrived != 0).sum() <= k
    assert ((arrived == update) | (arrived == 0)).all()


@given(n=st.integers(200, 3000), fraction=st.floats(0.05, 0.9), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_random_k_keeps_places_that_are_the_seeds(n, fraction, seed):
    one, other = numbers(n, 1), numbers(n, 2)
    k = round(fraction * n)
    kept = through([random_k(fraction)], one, seed=seed) != 0
    assert int(kept.sum()) == k
    assert torch.equal(through([random_k(fraction)], one, seed=seed), one * kept)
    # whatever the update is
    assert torch.equal(through([random_k(fraction)], other, seed=seed), other * kept)
    assert not torch.equal(through([random_k(fraction)], one, seed=seed + 1) != 0, kept)


def test_random_k_chooses_every_place_equally_often():
    n, times = 50, 1000
    chosen = sum(
        (through([random_k(0.2)], torch.ones(n), seed=seed) for seed in range(times)), torch.zeros(n)
    )
    assert (chosen / times - 0.2).abs().max() < 5 * math.sqrt(0.2 * 0.8 / times)


@given(
    n=st.integers(2, 2000),
    fraction=st.floats(0.01, 0.9),
    seed=st.integers(0, 1000),
    bits=st.sampled_from([8, 4]),
)
@settings(max_examples=40)
def test_what_is_thinned_out_and_quantized_is_zero_where_nothing_was_sent(n, fraction, seed, bits):
    update = numbers(n, seed)
    for sparsifier in (top_k(fraction), random_k(fraction)):
        places = through([sparsifier], update, seed=seed) != 0
        both = through([sparsifier, quantize(bits, block=64)], update, seed=seed)
        assert not both[~places].any()
        assert (both - update)[places].abs().max() <= update[places].abs().max() / LEVELS[bits] * 1.0001


# --- quantized


def level(update, bits, block):
    """The distance [n] between two values that a block of its largest magnitude can tell apart."""
    return torch.cat([part.abs().max().expand(len(part)) / LEVELS[bits] for part in update.split(block)])


@given(
    n=st.integers(1, 1500),
    bits=st.sampled_from([8, 4]),
    block=st.integers(1, 400),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-20, 1e-6, 1.0, 500.0]),
)
@settings(max_examples=60)
def test_a_quantized_number_is_within_one_level_of_what_it_was(n, bits, block, seed, scale):
    update = numbers(n, seed, scale)
    arrived = through([quantize(bits, block=block)], update, seed=seed)
    step = level(update, bits, block)
    assert ((arrived - update).abs() <= step * 1.0001).all()
    whole = arrived / step
    assert (whole - whole.round()).abs().max() < 1e-3  # and it is one of the levels


@pytest.mark.parametrize("bits", [8, 4])
def test_quantizing_is_right_in_the_mean(bits):
    update, times = numbers(60, 3), 800
    total = torch.zeros(60, dtype=torch.float64)
    for seed in range(times):
        total += through([quantize(bits, block=20)], update, seed=seed).double()
    # The rounding of one number has a deviation of at most half a level.
    assert ((total / times - update).abs() <= 5 * level(update, bits, 20) / 2 / math.sqrt(times)).all()
    assert (through([quantize(bits, block=20)], update, seed=0) - update).abs().max() > 0.1 * float(
        level(update, bits, 20).min()
    )


@given(n=st.integers(100, 1500), seed=st.integers(0, 1000))
@settings(max_examples=30)
def test_eight_bits_are_finer_than_four(n, seed):
    update = numbers(n, seed)
    eight, four = (float((through([quantize(bits)], update, seed=seed) - update).norm()) for bits in (8, 4))
    assert 0 < eight < four / 5  # 127 levels to 7


@given(
    n=st.integers(1, 300),
    bits=st.sampled_from([8, 4]),
    seed=st.integers(0, 1000),
    sign=st.sampled_from([1.0, -1.0]),
)
@settings(max_examples=40)
def test_a_blocks_largest_magnitude_and_its_zeros_arrive_as_they_are(n, bits, seed, sign):
    update = torch.zeros(n)
    update[seed % n] = sign * 3.7
    assert torch.equal(through([quantize(bits)], update, seed=seed), update)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_largest_magnitude_is_never_rounded_beyond_itself(bits):
    """127 plus a draw within 2^-18 of 1 is 128 in fp32; of a million draws some four are."""
    assert torch.equal(through([quantize(bits)], torch.ones(1_000_000)), torch.ones(1_000_000))


def test_a_small_number_survives_in_a_block_without_a_large_one():
    update = torch.cat([torch.full((10,), 1000.0), torch.full((10,), 1e-3)])
    assert torch.equal(through([quantize(8, block=10)], update), update)
    assert set(through([quantize(8, block=20)], update)[10:].tolist()) <= {
        0.0,
        float(torch.tensor(1000.0) / 127),
    }


# --- zeros


@given(transforms=chains, n=st.integers(1, 1200), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_an_update_of_zeros_arrives_as_zeros(transforms, n, dtype, seed):
    assert torch.equal(through(transforms, torch.zeros(n), dtype, seed), torch.zeros(n))
    assert torch.equal(clip(transforms, torch.zeros(n)), torch.zeros(n))


# --- clipped


@given(
    transforms=chains,
    n=st.integers(1, 2000),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
    norm=st.floats(1e-3, 10),
)
@example(transforms=[quantize(4)], n=1000, dtype=torch.float32, seed=0, norm=1.0)
@example(transforms=[], n=1, dtype=torch.bfloat16, seed=0, norm=1.005)
def test_what_arrives_is_no_longer_than_a_clips_norm_however_it_is_rounded(transforms, n, dtype, seed, norm):
    transforms = [Clip(kind="clip", norm=norm), *(t for t in transforms if t.kind != "clip")]
    arrived, _ = sent_through(transforms, numbers(n, seed, 3.0), dtype, seed)
    assert float(arrived.double().norm()) <= norm * (1 + 2e-6)


def test_what_was_unsent_before_is_clipped_with_what_is_new():
    """Error feedback may not lengthen what is sent: a norm of 3.14 was seen under a clip of 1."""
    transforms = [Clip(kind="clip", norm=1.0), top_k(0.1)]
    unsent = torch.zeros(1000)
    for round in range(20):
        arrived, unsent = sent_through(transforms, numbers(1000, round, 5.0) + unsent, torch.float32, round)
        assert float(arrived.norm()) <= 1 + 1e-6
        # what a clip cuts off is gone, as without feedback
        assert float((arrived + unsent).norm()) <= 1 + 1e-5


@given(
    n=st.integers(1, 500),
    norm=st.floats(1e-3, 1e3),
    scale=st.sampled_from([1e-6, 1.0, 100.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40)
def test_a_short_update_is_left_alone_and_a_long_one_scaled_to_the_norm(n, norm, scale, seed):
    update = numbers(n, seed, scale)
    length = float(update.double().norm())
    clipped = clip([Clip(kind="clip", norm=norm)], update)
    if length <= norm * 0.9999:
        assert torch.equal(clipped, update)
    else:
        expected = update.double() * min(1.0, norm / length)
        torch.testing.assert_close(clipped.double(), expected, rtol=1e-5, atol=1e-12)


def test_nothing_is_clipped_where_nobody_asks_for_it():
    update = numbers(10, scale=1e6)
    assert torch.equal(clip([], update), update)
    assert torch.equal(clip([top_k(0.5), quantize(8)], update), update)


# --- error feedback


def sent_over_rounds(transforms, updates, feedback):
    """After each round: the sum of what arrived, and what is still unsent."""
    total, unsent = torch.zeros(len(updates[0]), dtype=torch.float64), torch.zeros(len(updates[0]))
    for seed, update in enumerate(updates):
        wanted = update + unsent if feedback else update
        arrived = through(transforms, wanted, seed=seed)
        unsent = wanted - arrived
        total = total + arrived.double()
        yield total, unsent


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5])
def test_with_top_k_and_error_feedback_what_arrives_keeps_up_with_the_sum_of_updates(fraction):
    """What is unsent stays bounded (Stich et al. 2018; Karimireddy et al. 2019, Lemma 3): |e| <= 2 sqrt(1 -
    d) / d |u|, where top_k sends a share d."""
    update, rounds = numbers(200, 4), 300
    bound = 2 * math.sqrt(1 - fraction) / fraction * float(update.norm())
    for t, (total, unsent) in enumerate(sent_over_rounds([top_k(fraction)], [update] * rounds, True), 1):
        assert float((total - t * update.double()).norm()) <= bound
        # nothing is lost
        torch.testing.assert_close(total + unsent.double(), t * update.double(), rtol=1e-4, atol=1e-3)


def test_without_error_feedback_the_small_numbers_never_arrive():
    update = numbers(200, 4)
    *_, (total, _) = sent_over_rounds([top_k(0.1)], [update] * 300, False)
    assert int((total != 0).sum()) == 20
    *_, (total, _) = sent_over_rounds([top_k(0.1)], [update] * 300, True)
    assert (total != 0).sum() > 150


def test_with_random_k_and_error_feedback_every_place_catches_up():
    """A place waits 1 / 0.2 rounds in the mean, hardly ever more than 60 (0.8^60 is 1.5e-6)."""
    update, rounds = numbers(200, 5), 400
    *_, (total, unsent) = sent_over_rounds([random_k(0.2)], [update] * rounds, True)
    assert ((total - rounds * update.double()).abs() <= 60 * update.double().abs()).all()
    torch.testing.assert_close(total + unsent.double(), rounds * update.double(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("bits", [8, 4])
def test_with_quantizing_and_error_feedback_the_sum_is_off_by_a_level_not_by_more_each_round(bits):
    update, rounds = numbers(200, 6), 300
    largest = float(update.abs().max())
    for t, (total, _) in enumerate(sent_over_rounds([quantize(bits, block=200)], [update] * rounds, True), 1):
        # e is less than a level of u + e, whose magnitude is at most L + e: e <= (L + e) / levels
        assert float((total - t * update.double()).abs().max()) <= largest / (LEVELS[bits] - 1) * 1.001


def test_each_transform_says_whether_it_feeds_back():
    assert feeds_back([top_k(0.1)])
    assert feeds_back([random_k(0.1)])
    assert feeds_back([quantize(8, error_feedback=True)])
    assert feeds_back([Clip(kind="clip", norm=1.0), top_k(0.1), quantize(4)])
    assert not feeds_back([top_k(0.1, error_feedback=False), quantize(4)])
    assert not feeds_back([Clip(kind="clip", norm=1.0)])
    assert not feeds_back([])
