from itertools import product

from fedray.randomness import generator, key


def test_every_seed_round_client_and_purpose_has_its_own_draws():
    keys = [
        key(s, t, c, p)
        for s, t, c, p in product(range(4), range(12), range(-1, 12), ("noise", "batches", "order"))
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= k < 2**63 for k in keys)


def test_the_same_key_draws_the_same_whatever_was_drawn_before():
    first = generator(0, 1, 2, "noise").random(5)
    generator(0, 1, 3, "noise").random(100)
    assert (generator(0, 1, 2, "noise").random(5) == first).all()


def test_keys_do_not_change_between_versions():
    """Else a resumed run would go on with other draws."""
    assert key(0, 1, 2, "noise") == 6214982503372641507
