"""How many actors there are, and what each holds of the machine. It never changes a result."""

from __future__ import annotations

from dataclasses import dataclass

from fedray.scenario.scenario import Scenario


@dataclass(frozen=True)
class Packing:
    actors: int  # that train; the server and the evaluator come beside them
    cpus_per_actor: float
    gpus_per_actor: float  # the evaluator's too; the server needs none


def pack(scenario: Scenario, cpus: int, gpus: int) -> Packing:
    """One actor a client while there is room, a GPU or `threads` cores each, and several clients an actor beyond that."""
    runtime = scenario.runtime
    room = max(1, gpus or cpus // runtime.threads)
    actors = min(scenario.population.a_round, room) if runtime.actors == "auto" else runtime.actors
    on_fullest_gpu = -(-(actors + 1) // gpus) if gpus else 0  # with the evaluator
    fair_share = int(1000 / on_fullest_gpu) / 1000 if gpus else 0.0
    share = fair_share if runtime.gpus_per_actor == "auto" else runtime.gpus_per_actor
    return Packing(actors, min(float(runtime.threads), int(1000 * cpus / actors) / 1000), share)
