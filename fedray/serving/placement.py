"""Where the requests' shares are known: which bases and adapters a cache should keep."""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, eye_array, hstack

from fedray.serving.catalogue import Catalogue


def optimal_placement(catalogue: Catalogue, capacity_bytes: float) -> np.ndarray:
    """The items with the highest hit ratio that fit [items] bool, by integer programming: maximise the sum of
    p_i x_i, where an adapter counts with its base alone (x_i <= y_base(i)) and all that is cached fits.

    Args:
        catalogue: of bases and adapters.
        capacity_bytes: of the cache.
    """
    bases = catalogue.bases
    adapters = len(catalogue.adapter_bytes)
    value = np.concatenate([np.zeros(bases), -catalogue.popularity])
    rows = np.arange(adapters)
    of_base = coo_array((np.full(adapters, -1.0), (rows, catalogue.base_of)), shape=(adapters, bases))
    with_base = LinearConstraint(hstack([of_base, eye_array(adapters)]), ub=0)
    # In units of the capacity: the solver's tolerances are absolute.
    relative = catalogue.item_bytes / max(capacity_bytes, 1.0)
    fits = LinearConstraint(relative[None], ub=capacity_bytes / max(capacity_bytes, 1.0))
    found = milp(
        value,
        integrality=np.ones_like(value),
        bounds=Bounds(0, 1),
        constraints=[with_base, fits],
        options={"mip_rel_gap": 0},
    )
    cached: np.ndarray = found.x > 0.5
    cached[:bases] &= np.isin(np.arange(bases), catalogue.base_of[cached[bases:]])  # no base for nothing
    return cached


def greedy_placement(catalogue: Catalogue, capacity_bytes: float) -> np.ndarray:
    """Adapters in descending order of popularity per byte, each where it still fits, with its base where that
    is not there yet [items] bool. The bytes it is divided by are its own and, until its base is there, the
    base's too.

    Args:
        catalogue: of bases and adapters.
        capacity_bytes: of the cache.
    """
    cached = np.zeros(len(catalogue.item_bytes), bool)
    base_bytes = catalogue.base_bytes.astype(float)
    left = np.ones(len(catalogue.adapter_bytes), bool)
    free = float(capacity_bytes)
    while left.any():
        missing = np.where(cached[: catalogue.bases], 0.0, base_bytes)[catalogue.base_of]
        needed = catalogue.adapter_bytes + missing
        left &= needed <= free
        if not left.any():
            break
        density = np.where(left, catalogue.popularity / np.maximum(needed, 1.0), -1.0)
        chosen = int(np.argmax(density))
        cached[catalogue.items_of(chosen)] = True
        free -= needed[chosen]
        left[chosen] = False
    return cached
