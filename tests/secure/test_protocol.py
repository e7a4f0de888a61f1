"""Shares, masks, graph and protocol: what fits together, and what tells nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.secure.graph import neighbours
from fedray.secure.masks import add_mask, as_integers, as_numbers
from fedray.secure.protocol import TooFewShares
from fedray.secure.round import SecureRound
from fedray.secure.shamir import reconstruct, split
from fedray.secure.sizes import message_bytes

N = 8


def secure_round(answering):
    near = neighbours(range(N), None, 0, 1)
    return SecureRound(0, 1, 5, 64, None, 16, near, tuple(answering))


def test_shares_of_a_known_polynomial_and_their_secret():
    shares = split(1234, [166, 94], range(1, 7), 1613)
    assert list(shares.values()) == [1494, 329, 965, 176, 1188, 775]
    assert reconstruct({x: shares[x] for x in (2, 4, 5)}, 1613) == 1234
    assert reconstruct({x: shares[x] for x in (2, 4)}, 1613) != 1234


@given(
    values=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=20),
    key=st.binary(min_size=32, max_size=32),
)
@settings(max_examples=30)
def test_a_mask_that_is_added_and_taken_away_leaves_every_integer(values, key):
    numbers = as_integers(np.array(values, float) / 8, 3, 1 / 8, 64)
    masked = numbers.copy()
    add_mask(masked, key, 1)
    add_mask(masked, key, -1)
    assert as_numbers(masked, 1 / 8).tolist() == [3 * v / 8 for v in values]


def test_masks_come_off_with_two_of_eight_gone_and_not_with_four_answers():
    senders = range(2, N)
    total = np.zeros(1000, np.uint64)
    for client in senders:
        own = np.full(1000, client, np.uint64)
        secure_round(senders).mask(own, client)
        counts = np.bincount(own.view(np.uint8), minlength=256)  # chi-square, 255 degrees: 99.9% below 331
        assert ((counts - 31.25) ** 2 / 31.25).sum() < 331
        total += own
    masked = total.copy()
    with pytest.raises(TooFewShares):
        secure_round([2, 3, 4, 5]).unmask(total, senders)
    assert (total == masked).all()
    secure_round(senders).unmask(total, senders)
    assert set(total.tolist()) == {sum(senders)}


def test_the_sparse_graph_is_regular_symmetric_and_of_its_seed():
    near = neighbours(range(20), 6, 0, 1)
    assert {len(set(others)) for others in near.values()} == {6}
    assert all(client in near[other] for client, others in near.items() for other in others)
    assert near == neighbours(range(20), 6, 0, 1) != neighbours(range(20), 6, 1, 1)


def test_keys_and_shares_of_twenty_clients_are_about_five_kilobytes():
    assert sum(message_bytes(m, 19) for m in ("keys", "peer_keys", "shares", "peer_shares")) == 4624
