import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.checks import check
from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from fedray.randomness import SERVER_ID
from fedray.schedule import Schedule
from fedray.steps import SERVER_NODE, Aggregate, Send, Train, client_node
from fedray.topologies.relay import best_sidelink, random_order
from tests.helpers import chained, tiny, way


@given(clients=st.sets(st.integers(0, 50), min_size=1, max_size=12), best=st.booleans(), data=st.data())
def test_every_client_trains_once_and_every_buffer_goes_where_the_next_turn_is(clients, best, data):
    chains = data.draw(st.integers(1, len(clients)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    order = (
        best_sidelink(lambda i, others: np.array([float((7 * i + 13 * j) % 11) for j in others]))
        if best
        else random_order
    )
    schedule = chained(3, sorted(clients), chains, order, rng)
    steps = {s.id: s for s in schedule}
    assert sorted(schedule.clients) == sorted(clients)
    for step in schedule:
        if isinstance(step, Train):
            (source,) = (steps[i] for i in step.after)
            assert isinstance(source, Send)
            assert source.peer == client_node(step.client)
        elif isinstance(step, Send) and step.direction == "downlink":
            assert step.node == SERVER_NODE
            assert not step.after
        elif isinstance(step, Send):
            (source,) = (steps[i] for i in step.after)
            assert isinstance(source, Train)
            assert step.node == source.node
            assert (step.peer == SERVER_NODE) == (step.direction == "uplink")
            if step.direction == "sidelink":
                assert any(
                    isinstance(s, Train) and s.after == (step.id,) and s.node == step.peer for s in schedule
                )
    sent = [s.direction for s in schedule if isinstance(s, Send)]
    assert (sent.count("downlink"), sent.count("sidelink"), sent.count("uplink")) == (
        chains,
        len(clients) - chains,
        chains,
    )
    last = schedule.steps[-1]
    assert isinstance(last, Aggregate)
    assert set(last.after) == {s.id for s in schedule if isinstance(s, Send) and s.direction == "uplink"}


@given(clients=st.integers(1, 20), data=st.data())
def test_chains_differ_by_at_most_one_client(clients, data):
    chains = data.draw(st.integers(1, clients))
    schedule = chained(1, range(clients), chains, random_order, np.random.default_rng(0))
    lengths = []
    for step in schedule:
        if isinstance(step, Send) and step.direction == "downlink":
            lengths.append(0)
        lengths[-1] += isinstance(step, Train)
    assert max(lengths) - min(lengths) <= 1


def test_the_best_sidelink_takes_the_greedy_path():
    rates = np.array(
        [[0, 9, 1, 5, 1], [9, 0, 8, 2, 3], [1, 1, 0, 4, 7], [6, 1, 1, 0, 2], [1, 2, 3, 9, 0]], float
    )
    paths = {
        0: [0, 1, 2, 4, 3],
        1: [1, 0, 3, 4, 2],
        2: [2, 4, 3, 0, 1],
        3: [3, 0, 1, 2, 4],
        4: [4, 3, 0, 1, 2],
    }
    seen = set()
    for seed in range(40):
        path = way(best_sidelink(lambda i, others: rates[i, others]), range(5), np.random.default_rng(seed))
        assert path == paths[path[0]]
        seen.add(path[0])
    assert seen == set(range(5))


def test_equal_rates_go_to_the_smaller_number():
    path = way(best_sidelink(lambda i, others: np.ones(len(others))), [4, 2, 9, 7], np.random.default_rng(0))
    assert path[1:] == sorted(set(path) - {path[0]})


def test_a_random_order_is_every_permutation_alike():
    first = [way(random_order, range(4), np.random.default_rng(seed))[0] for seed in range(400)]
    assert all(60 < first.count(client) < 140 for client in range(4))


def test_a_round_s_schedule_depends_on_the_seed_and_the_round_alone(tmp_path):
    def schedules(seed):
        scenario = check(tiny(tmp_path, {"seed": seed, "population.per_round": 3}, f"{seed}.yaml")).scenario
        radio = Radio(scenario.network)
        return [schedule_round(scenario, radio, t) for t in range(1, 30)]

    once, again, other = schedules(0), schedules(0), schedules(1)
    assert once == again != other
    assert all(len(s.clients) == 3 for s in once)
    assert {c for s in once for c in s.clients} == set(range(5))
    assert len({tuple(s.clients) for s in once}) > 20


def test_the_order_by_best_sidelink_reads_the_scenarios_table(tmp_path):
    rates = [
        [1.0, 5e6, 1e6, 1e6, 1e6],
        [1e6, 1.0, 5e6, 1e6, 1e6],
        [1e6, 1e6, 1.0, 5e6, 1e6],
        [1e6, 1e6, 1e6, 1.0, 5e6],
        [5e6, 1e6, 1e6, 1e6, 1.0],
    ]
    changes = {"topology.order": "best_sidelink", "network.sidelink": {"kind": "fixed", "rate_bps": rates}}
    scenario = check(tiny(tmp_path, changes)).scenario
    for t in range(1, 8):
        path = schedule_round(scenario, Radio(scenario.network), t).clients
        assert path == [(path[0] + i) % 5 for i in range(5)]


def test_a_step_cannot_wait_for_one_that_stands_behind_it():
    with pytest.raises(ValueError, match="waits for a step"):
        Schedule(1, (Train("train-0", 0, ("down-0",)), Send("down-0", SERVER_ID, 0, "downlink")))
