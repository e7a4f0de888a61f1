"""`runtime`: where the work runs. Nothing here but `threads` can change a result."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Count, Section


class Failures(Section):
    """A round that loses an actor or a node is done again, up to `retries` times. A data failure (a loss that
    is not finite, an image that cannot be read) drops the client from its round, at most `budget` times, or
    aborts the run."""

    retries: Annotated[int, Field(ge=0)] = 3
    data: Literal["abort", "drop"] = "drop"
    budget: Annotated[int, Field(ge=0)] = 10


class Runtime(Section):
    executor: Literal["ray", "serial"] = "ray"
    actors: Count | Literal["auto"] = "auto"
    gpus_per_actor: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    threads: Count = 1  # of each actor; another number gives other bits
    checkpoint_every: Count = 1
    report_to: list[Literal["tensorboard"]] = []  # beside metrics.jsonl and Ray's dashboard
    failures: Failures = Failures()
