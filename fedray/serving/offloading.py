"""Several edges that cache models and serve each other's users: where models lie, and who serves whom."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array, eye_array, hstack, kron


@dataclass(frozen=True)
class Offloading:
    """Where models lie, and what a request waits for them.

    Attributes:
        cached: which model lies at which edge [edges, models] bool.
        served_by: the edge that serves each group of users with each model; -1: the cloud
            [groups, models] int.
        mean_s: seconds that a request waits for its model to be reached.
    """

    cached: np.ndarray
    served_by: np.ndarray
    mean_s: float


@dataclass(frozen=True)
class Edges:
    """Groups of users, the edges that they reach, and the models that they ask for.

    Attributes:
        model_bytes: of each model [models].
        capacity_bytes: of each edge's cache [edges].
        demand: the share of all requests that each group makes for each model; adds up to 1
            [groups, models].
        reach_s: seconds from each group to each edge [groups, edges].
        cloud_s: seconds to the cloud, which has every model.
    """

    model_bytes: np.ndarray
    capacity_bytes: np.ndarray
    demand: np.ndarray
    reach_s: np.ndarray
    cloud_s: float

    def offloaded(self, cached: np.ndarray) -> Offloading:
        """Every request goes to the nearest that has its model. `cached`: [edges, models] bool."""
        seconds = np.where(cached[None], self.reach_s[:, :, None], np.inf)  # [groups, edges, models]
        nearest = seconds.argmin(axis=1)
        least = np.minimum(seconds.min(axis=1), self.cloud_s)
        at_edge = seconds.min(axis=1) <= self.cloud_s
        return Offloading(cached, np.where(at_edge, nearest, -1), float((self.demand * least).sum()))


def joint_placement(edges: Edges) -> Offloading:
    """What caches and offloads with the least mean seconds, by integer programming: x_lk in {0, 1} says that
    edge l caches model k, y_ulk <= x_lk that it serves group u with it, sum over l of y_ulk <= 1; the rest is
    served by the cloud.

    Args:
        edges: with their users and models.
    """
    groups, models = edges.demand.shape
    count = len(edges.capacity_bytes)
    saved_s = edges.cloud_s - edges.reach_s  # an edge instead of the cloud [groups, edges]
    value = -(edges.demand[:, None, :] * saved_s[:, :, None]).reshape(-1)  # of y_ulk
    placed = count * models
    served = groups * placed
    at_cached = hstack([-kron(np.ones((groups, 1)), eye_array(placed)), eye_array(served)])
    once = kron(eye_array(groups), kron(np.ones((1, count)), eye_array(models)))
    scale = max(float(np.max(edges.capacity_bytes)), 1.0)
    bytes_at = kron(eye_array(count), (edges.model_bytes / scale)[None])
    found = milp(
        np.concatenate([np.zeros(placed), value]),
        integrality=np.concatenate([np.ones(placed), np.zeros(served)]),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(csr_array(at_cached), ub=0),
            LinearConstraint(hstack([_zeros(groups * models, placed), once]), ub=1),
            LinearConstraint(hstack([bytes_at, _zeros(count, served)]), ub=edges.capacity_bytes / scale),
        ],
        options={"mip_rel_gap": 0},
    )
    return edges.offloaded(found.x[:placed].reshape(count, models) > 0.5)


def alone_placement(edges: Edges) -> Offloading:
    """Each edge caches for the group of the same number, and serves no other: what joint_placement is
    compared with.

    Args:
        edges: as many as groups.
    """
    count = len(edges.capacity_bytes)
    own = [_only(edges, place) for place in range(count)]
    cached = np.concatenate([joint_placement(edge).cached for edge in own])
    seconds = sum(edge.offloaded(cached[place : place + 1]).mean_s for place, edge in enumerate(own))
    served_by = np.where(cached, np.arange(count)[:, None], -1)
    return Offloading(cached, served_by, float(seconds))


def _only(edges: Edges, place: int) -> Edges:
    """One edge with its own group of users."""
    one = slice(place, place + 1)
    return Edges(
        edges.model_bytes,
        edges.capacity_bytes[one],
        edges.demand[one],
        edges.reach_s[one, one],
        edges.cloud_s,
    )


def _zeros(rows: int, columns: int) -> coo_array:
    return coo_array((rows, columns))
