"""The round in which clients score candidate prompts with the models that they have just trained. No torch
here.

server paints candidates -> each client, after its local update: scores them -> server, before its update
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from fedray.randomness import SERVER_ID
from fedray.scenario.augmentation import Augmentation
from fedray.scenario.prompts import SCORE_BYTES
from fedray.schedule import Schedule
from fedray.steps import Aggregate, Generate, Score, Send, Step


class Candidate(NamedTuple):
    """A template of a label that has others."""

    label: int
    template: int  # its place among the label's templates


class Trial(NamedTuple):
    """What the server needs to paint candidates, and to choose among them by clients' scores."""

    candidates: tuple[Candidate, ...]
    images: int  # of each
    counts: np.ndarray  # samples of each label that each client reports, int [clients, labels]
    scorers: tuple[int, ...]  # clients whose scores arrive


def candidates(section: Augmentation, label_names: Sequence[str]) -> tuple[Candidate, ...]:
    """Every template of every label that has more than one."""
    pools = [section.templates_of(name) for name in label_names]
    return tuple(
        Candidate(label, i) for label, pool in enumerate(pools) if len(pool) > 1 for i in range(len(pool))
    )


def with_trial(schedule: Schedule, count: int, images: int) -> Schedule:
    """The same round, in which the server paints so many images of each of so many candidates and sends them
    to the clients; each scores them after its local update, and sends a number for each candidate before its
    update.

    Args:
        schedule: a parallel round, without pictures to train on.
        count: of the candidates.
        images: of each.
    """
    pictures = count * images
    steps: list[Step] = [Generate("paint-candidates", SERVER_ID, pictures, trial=True)]
    for step in schedule:
        if isinstance(step, Aggregate):
            steps.append(step)
        elif isinstance(step, Send) and step.direction == "uplink":
            k = step.sender
            (trained,) = step.after
            sent = Send(
                f"candidates-{k}",
                SERVER_ID,
                k,
                "downlink",
                ("paint-candidates",),
                pictures=pictures,
                trial=True,
            )
            score = Score(f"score-{k}", k, pictures, (trained, sent.id))
            scores = Send(f"scores-{k}", k, SERVER_ID, "uplink", (score.id,), bytes=SCORE_BYTES * count)
            steps += [sent, score, scores, step._replace(after=(trained, scores.id))]
        else:
            steps.append(step)
    return replace(schedule, steps=tuple(steps))


def scorers(schedule: Schedule) -> tuple[int, ...]:
    """The clients whose scores arrive in a round, of which only that is left which is done."""
    senders = {step.sender for step in schedule if isinstance(step, Send) and step.id.startswith("scores-")}
    return tuple(client for client in schedule.clients if client in senders)


def mean_scores(trial: Trial, scores: Mapping[int, Sequence[float]], labels: int) -> np.ndarray:
    """Each candidate's score [labels, most templates] fp32, NaN for what was not tried: the mean over
    clients, each by how many samples of the label it has; where none has any, all alike.

    Args:
        trial: with the candidates and the clients' samples.
        scores: by client, one number a candidate.
        labels: how many there are.
    """
    width = 1 + max(c.template for c in trial.candidates)
    result = np.full((labels, width), np.nan, np.float32)
    clients = sorted(scores)
    if not clients:
        return result
    numbers = np.array([scores[c] for c in clients], float)
    for i, candidate in enumerate(trial.candidates):
        weights = trial.counts[clients, candidate.label].astype(float)
        result[candidate.label, candidate.template] = np.average(
            numbers[:, i], weights=weights if weights.any() else None
        )
    return result


def chosen(scores: Any) -> dict[int, int]:
    """The best template of each label that was tried, by label; of equals the first."""
    tried = [label for label, row in enumerate(scores) if not np.isnan(row).all()]
    return {label: int(np.nanargmax(scores[label])) for label in tried}
