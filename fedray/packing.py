"""How many actors there are, where, and what each holds of the machines. It never changes a result."""

from __future__ import annotations

from dataclasses import dataclass

from fedray.scenario.scenario import Scenario


@dataclass(frozen=True)
class Packing:
    sites: tuple[str | None, ...]  # of each actor that trains; the server and the evaluator come beside them
    cpus_per_actor: float
    gpus_per_actor: float  # the evaluator's too; the server needs none

    @property
    def actors(self) -> int:
        return len(self.sites)

    def at_once(self, cpus: float, gpus: float) -> int:
        """How many such runs fit side by side."""
        by_gpu = int(gpus // (self.gpus_per_actor * (self.actors + 1))) if self.gpus_per_actor else None
        return max(1, int(cpus // (self.cpus_per_actor * self.actors)) if by_gpu is None else by_gpu)


def pack(scenario: Scenario, cpus: int, gpus: int) -> Packing:
    """One actor a client while there is room, a GPU or `threads` cores each, and several clients an actor beyond that;
    at least one at each site, the others where the most clients share one."""
    runtime, clients_at = scenario.runtime, scenario.sites
    room = max(1, gpus or cpus // runtime.threads)
    actors = min(scenario.population.a_round, room) if runtime.actors == "auto" else runtime.actors
    sites: list[str | None] = [*clients_at]
    while len(sites) < actors:
        sites.append(max(clients_at, key=lambda s: len(clients_at[s]) / sites.count(s), default=None))
    on_fullest_gpu = -(-(len(sites) + 1) // gpus) if gpus else 0  # with the evaluator
    fair_share = int(1000 / on_fullest_gpu) / 1000 if gpus else 0.0
    share = fair_share if runtime.gpus_per_actor == "auto" else runtime.gpus_per_actor
    return Packing(tuple(sites), min(float(runtime.threads), int(1000 * cpus / len(sites)) / 1000), share)
