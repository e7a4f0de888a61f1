"""What tests of many clients come to: mean and spread."""

from collections.abc import Mapping, Sequence

import numpy as np

TENTH = 0.1
LARGER_IS_BETTER = ("accuracy", "recall", "precision", "reward")  # endings of metrics


def spread(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each metric m of the clients' tests, metrics of a round: `eval_clients_m` is the mean over clients,
    `..._std` the standard deviation over them (of n, not n - 1), `..._worst` the mean over the tenth of the
    clients that does worst (as Li et al. 2020 report fairness), and `..._pooled` the mean over all their
    samples.

    Args:
        rows: of one round, each with `client`, `samples` and the metrics.
    """
    if not rows:
        return {}
    weights = np.array([row["samples"] for row in rows], float)
    result = {"eval_clients": float(len(rows))}
    for name in rows[0]:
        if name in ("round", "client", "samples"):
            continue
        values = np.array([row[name] for row in rows], float)
        order = np.sort(values)
        if not name.endswith(LARGER_IS_BETTER):
            order = order[::-1]
        key = f"eval_clients_{name}"
        result[key] = float(values.mean())
        result[f"{key}_std"] = float(values.std())
        result[f"{key}_worst"] = float(order[: max(1, round(TENTH * len(order)))].mean())
        result[f"{key}_pooled"] = float(values @ weights / weights.sum())
    return result
