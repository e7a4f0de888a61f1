"""A local update that is under way, what it leaves, and what it draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedray.aggregation.rule import AdjustGradient, Rule, State
from fedray.executors import DataFailure, TrainReport, refuse_infinite


class AuditedData(NamedTuple):
    """A client's data under the global model."""

    client: int
    samples: int
    loss: float  # its local learning error
    gradient: np.ndarray  # [trained] fp32


@dataclass
class Turn:
    """A local update that is under way."""

    round_number: int  # from 1
    client: int
    shard: Any  # its encoded samples
    samples: int  # on how many it trains
    rule: Rule
    start: Tensor  # the weights [trained] that it began with
    state: State  # what the client kept
    adjust: AdjustGradient | None  # changes a gradient before each step
    draws: torch.Generator  # of the client's own
    batches: list[np.ndarray]  # samples of each step
    scale: float  # of the loss
    received: Tensor  # the global numbers [numel] that it began with
    own_state: State  # what the client kept for a model of its own
    places: np.ndarray | None = None  # which of the client's samples it trains on; None: all
    staleness: int = 0  # server steps by which the model that it began with is older than the newest
    losses: list[float] = field(default_factory=list)  # each batch's loss times its samples
    samples_taken: int = 0  # that steps were taken for
    steps_taken: int = 0
    factors: float = 0.0  # on the learning rate, added up over the steps taken
    own_samples_taken: int = 0  # by steps whose result stays at home
    own_steps_taken: int = 0

    def add_loss(self, loss: float, samples: int) -> None:
        """The mean loss of the next batch, of so many samples.

        Raises:
            DataFailure: where it is not finite.
        """
        refuse_infinite(loss, len(self.losses), self.client)
        self.losses.append(loss * samples)


@dataclass
class LocalUpdate:
    """What a local update leaves, beside the weights in the worker's model."""

    report: TrainReport
    extra: Tensor | None  # what the rule sends beside the update
    state: State  # what the client keeps
    received: Tensor  # the global numbers [numel] that it began with, in the processor's memory
    rule: Rule  # the client's own, with what it has kept of this update


def failed_report(round_number: int, client: int, samples: int, failure: DataFailure) -> TrainReport:
    """The report of a client that holds so many samples and could not train.

    Args:
        round_number: from 1.
        client: by number.
        samples: that it holds.
        failure: why it could not train.
    """
    return TrainReport(round_number, client, samples, 0, math.nan, str(failure), failure.stage)


def batches(
    sizes: Sequence[int], samples: int, rng: np.random.Generator, groups: np.ndarray | None = None
) -> list[np.ndarray]:
    """Index arrays of one local update: the samples in a fresh order each time they have all been used.

    Args:
        sizes: of the batches.
        samples: that there are.
        rng: what is drawn comes from it alone.
        groups: of each sample, int [n], of which a batch has one (see `grouped_batches`).
    """
    if groups is not None:
        return grouped_batches(sizes, groups, rng)
    stream: list[int] = []
    out = []
    for size in sizes:
        while len(stream) < size:
            stream += rng.permutation(samples).tolist()
        out.append(np.array(stream[:size]))
        stream = stream[size:]
    return out


def grouped_batches(sizes: Sequence[int], groups: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """The same where a batch has samples of one group: of the order of all, the first sample that is left,
    and the next ones of its group. A group has nearly the share of batches that its samples are of all; a
    batch larger than a group repeats its samples. With one group the batches are those of `batches`."""
    stream: list[int] = []
    out = []
    for size in sizes:
        if not stream:
            stream += rng.permutation(len(groups)).tolist()
        group = groups[stream[0]]
        places = [place for place, i in enumerate(stream) if groups[i] == group]
        while len(places) < size:
            more = rng.permutation(len(groups)).tolist()
            places += [len(stream) + place for place, i in enumerate(more) if groups[i] == group]
            stream += more
        taken = set(places[:size])
        out.append(np.array([stream[place] for place in places[:size]]))
        stream = [i for place, i in enumerate(stream) if place not in taken]
    return out


def in_chunks(shard: Any, samples: int, most: int) -> Iterator[np.ndarray]:
    """All of a shard's samples, so many at once; of one group each, where it has `groups`.

    Args:
        shard: what a client trains on.
        samples: that it has.
        most: at once.
    """
    groups = getattr(shard, "groups", np.zeros(samples, np.int64))
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        yield from (places[start : start + most] for start in range(0, len(places), most))


def seed_dropout(device: torch.device, seed: int) -> None:
    """What dropout draws from. `torch.manual_seed` asks every backend there might be, each time."""
    torch.random.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextmanager
def summable(client: int | None = None) -> Iterator[None]:
    """What cannot be added up is its client's failure."""
    try:
        yield
    except ValueError as e:
        raise DataFailure("training", f"{e} (a smaller learning rate?)", client) from None
