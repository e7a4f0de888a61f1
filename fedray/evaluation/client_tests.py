"""What tests of many clients come to: mean and spread."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

TENTH = 0.1
LARGER_IS_BETTER = ("accuracy", "recall", "precision", "reward")  # endings of metrics
HOLDOUT = "holdout_"  # begins, in a client's row, what the global model does on its held-out samples
BY_NOISE = "_noise_"  # in the name of a loss at one level of noise, before the level's number

Row = Mapping[str, float]


def spread(rows: Sequence[Row]) -> dict[str, float]:
    """Metrics of a round, of the rows of its clients' tests.

    Of each metric m of clients' own models: `eval_clients_m` is the mean over clients, and `..._pooled` the
    mean over all their samples. Of each metric m of the global model on held-out samples:
    `eval_holdout_m` is the mean over all of them, and `..._mean` the mean over clients. Of both: `..._std` is
    the standard deviation over clients (of n, not n - 1) and `..._worst` the mean over the tenth of the
    clients that does worst (as Li et al. 2020 report fairness). A loss at one level of noise has the first
    alone.

    Args:
        rows: of one round, each with `client`; `samples` and metrics of its own model, or `holdout_samples`
            and metrics of the global one that begin with `holdout_`, or both.
    """
    result: dict[str, float] = {}
    if own := [row for row in rows if "samples" in row]:
        result["eval_clients"] = float(len(own))
        weights = np.array([row["samples"] for row in own], float)
        for name in metrics_of(own):
            key = f"eval_clients_{name}"
            mean, pooled, beside = _spread(key, own, name, weights)
            result |= {key: mean} | beside | {f"{key}_pooled": pooled}
    if held_out := [row for row in rows if f"{HOLDOUT}samples" in row]:
        weights = np.array([row[f"{HOLDOUT}samples"] for row in held_out], float)
        result |= {"eval_holdout_clients": float(len(held_out)), "eval_holdout_samples": weights.sum()}
        for name in metrics_of(held_out, HOLDOUT):
            key = f"eval_{HOLDOUT}{name}"
            mean, pooled, beside = _spread(key, held_out, HOLDOUT + name, weights)
            result |= {key: pooled}
            if BY_NOISE not in name:
                result |= {f"{key}_mean": mean} | beside
    return result


def metrics_of(rows: Sequence[Row], prefix: str = "") -> Iterator[str]:
    """The metrics that all of some rows have, without their prefix."""
    for name in rows[0] if rows else ():
        inner = name.removeprefix(prefix)
        of_kind = name.startswith(prefix) if prefix else not name.startswith(HOLDOUT)
        counts = inner in ("round", "client", "samples")
        if of_kind and not counts and all(row.get(name) is not None for row in rows):
            yield inner


def worst_first(name: str, values: Sequence[float] | np.ndarray) -> list[float]:
    """Values of a metric, sorted."""
    ascending = np.sort(values)
    return (ascending if name.endswith(LARGER_IS_BETTER) else ascending[::-1]).tolist()


def _spread(
    key: str, rows: Sequence[Row], name: str, weights: np.ndarray
) -> tuple[float, float, dict[str, float]]:
    """The mean over clients, that over their samples, and by metrics of the round the spread.

    Args:
        key: the metric of the round.
        rows: a client each.
        name: the metric of a row.
        weights: of the rows.
    """
    values = np.array([row[name] for row in rows], float)
    worst = worst_first(name, values)[: max(1, round(TENTH * len(values)))]
    beside = {f"{key}_std": float(values.std()), f"{key}_worst": float(np.mean(worst))}
    return float(values.mean()), float(values @ weights / weights.sum()), beside
