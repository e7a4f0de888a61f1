"""Edge servers at the cells of an uplink, between which clients move."""

import numpy as np
import pytest
import torch

from fedray import checks
from fedray.planning.plan import plan
from fedray.scenario import ScenarioError
from tests.executors.test_node_models import hierarchy, local_end, stepped
from tests.helpers import job_of

GAINS = {
    "kind": "gains",
    "path": "gains.npz",
    "bandwidth_hz": 20.0e6,
    "transmit_dbm": 23.0,
    "latency_s": 0.01,
}
BY_CELL = {"edges": {"by": "nearest_cell"}, "edge_rounds": 4}


def moving(folder, cells=2):
    """Clients 0 to 2 in cell 0, and 3 and 4 in cell 1, until client 2 moves to cell 1."""
    gains_db = np.full((3, 5, cells), -110.0)
    for t, first in enumerate((3, 2, 2)):
        gains_db[t, :first, 0] = gains_db[t, first:, 1] = -80.0
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "gains.npz", gains_db=gains_db, time_s=np.array([0.0, 0.01, 1.0e4]))
    return folder


def changes(folder, **more):
    links = {f"network.{d}": GAINS | ({"load": 0.0} if d == "uplink" else {}) for d in ("uplink", "downlink")}
    return hierarchy(folder, BY_CELL, links | more)


def test_a_client_that_moves_to_another_cell_goes_on_from_its_edge_servers_model(tmp_path):
    schedules, models, executor = stepped(changes(moving(tmp_path)), 2)
    edge_of = [schedule.models.node_of for schedule in schedules]
    assert edge_of[0] == {0: 0, 1: 0, 2: 0, 3: 1, 4: 1}
    assert edge_of[1] == {0: 0, 1: 0, 2: 1, 3: 1, 4: 1}
    samples = executor.shared.samples
    for t, members in enumerate(([[0, 1, 2], [3, 4]], [[0, 1], [2, 3, 4]]), 1):
        for edge, clients in enumerate(members):
            total = sum(samples[c] for c in clients)
            ends = [samples[c] / total * local_end(executor, t, c, models[t - 1][edge]) for c in clients]
            assert torch.allclose(models[t][edge], torch.stack(ends).sum(0), atol=1e-6, rtol=0)
    held = [sum(samples[c] for c in clients) for clients in ([0, 1], [2, 3, 4])]
    mean = (held[0] * models[2][0] + held[1] * models[2][1]) / sum(held)
    assert torch.allclose(executor.layout.view(executor.buffer).double(), mean, atol=1e-6, rtol=0)


def test_an_edge_server_without_clients_in_a_round_keeps_its_model(tmp_path):
    population = {"population": {"clients": 5, "per_round": 1}}
    (schedule,), models, _ = stepped(changes(moving(tmp_path), **population), 1)
    (used,) = set(schedule.models.node_of.values())
    assert torch.equal(models[1][1 - used], models[0][1 - used])
    assert not torch.equal(models[1][used], models[0][used])


def test_a_cell_that_never_serves_anybody_is_refused(tmp_path):
    file = changes(moving(tmp_path, cells=3))
    with pytest.raises(ScenarioError, match=r"topology.edges: got nearest_cell, .* by cell 2 of 3 at any"):
        plan(checks.check(file))


def test_links_of_one_cell_are_refused(tmp_path):
    with pytest.raises(
        ScenarioError, match=r"topology.edges: got nearest_cell over fixed, expected network.up"
    ):
        job_of(hierarchy(tmp_path, BY_CELL))
