import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.executors import chains
from fedray.network.clock import time_round
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.scenario import Scenario
from fedray.steps import Aggregate, Send, Train
from fedray.topologies.parallel import parallel
from tests.helpers import GARMENTS, quickstart

PAYLOAD = 1_000_000
WORK = Work(lambda client, pictures: 1e9, lambda direction, client: PAYLOAD, lambda updates: 0.0)


@pytest.fixture(scope="module")
def radio():
    tree = GARMENTS | {"network": quickstart()["network"]}
    import json

    return Radio(Scenario.model_validate(json.loads(json.dumps(tree))).network)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=30, unique=True), st.booleans())
def test_every_client_trains_once_from_the_servers_model_and_is_a_chain_of_its_own(clients, allreduce):
    schedule = parallel(3, clients, allreduce)
    assert schedule.clients == clients
    assert chains(schedule) == [[c] for c in clients]
    trained = [s for s in schedule if isinstance(s, Train)]
    assert all(s.after == (f"down-{s.client}",) for s in trained)
    assert sum(isinstance(s, Aggregate) for s in schedule) == 1


def test_the_server_waits_for_every_uplink_and_clients_work_side_by_side(radio):
    events = {e.id: e for e in time_round(parallel(1, [3, 5, 8], False), WORK, radio, 0.0)}
    assert len({events[f"train-{k}"].t0_s for k in (3, 5, 8)}) == 1
    assert events["aggregate"].t0_s == max(events[f"up-{k}"].t1_s for k in (3, 5, 8))
    assert sum(e.bytes for e in events.values() if e.direction == "uplink") == 3 * PAYLOAD


@given(n=st.integers(2, 40))
def test_a_ring_of_n_clients_sends_two_n_minus_one_nths_of_the_payload_each(n, radio):
    events = time_round(parallel(1, list(range(n)), True), WORK, radio, 0.0)
    ring = [e for e in events if e.direction == "sidelink"]
    assert len(ring) == n
    assert {e.bytes for e in ring} == {round(2 * (n - 1) / n * PAYLOAD)}
    assert {e.node for e in ring} == {e.peer for e in ring} == {f"client-{k}" for k in range(n)}
    on_air_s = 8 * round(2 * (n - 1) / n * PAYLOAD) / 195.8e6
    assert ring[0].t1_s - ring[0].t0_s == pytest.approx(on_air_s + 2 * (n - 1) * 0.005)
    uplinks = [e for e in events if e.direction == "uplink"]
    assert [e.bytes for e in uplinks] == [PAYLOAD]
    assert uplinks[0].t0_s == pytest.approx(max(e.t1_s for e in ring))


def test_one_client_has_no_ring():
    assert not [s for s in parallel(1, [4], True) if isinstance(s, Send) and s.direction == "sidelink"]
