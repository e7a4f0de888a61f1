"""The client actors of a run: where they are, whose clients they train, and what becomes of those that
die."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError

from fedray.executors import Job
from fedray.executors.ray.actors import ClientHost
from fedray.planning.gangs import gangs
from fedray.planning.placement import Place

ACTOR_DEATH_TIMEOUT_S = 60.0  # how long a host may be unavailable before it is taken for dead
# How long an actor may look for room before a person is told, and others take a lost one's clients.
PLACEMENT_TIMEOUT_S = 20.0


@dataclass
class Host:
    """A client actor as the driver knows it."""

    actor: Any
    place: Place
    placed: Any  # a reference to its process: it has found room
    ready: Any  # a reference to its node: it can work


class HostPool:
    """Hosts are stateless towards clients, so a lost one needs no rescue: others, or a new one, take its
    clients.

    Args:
        job: the run's.
        note: shows a person what is done about lost actors and nodes.
        places: one for each host.
    """

    def __init__(self, job: Job, note: Callable[[str], None], places: Sequence[Place]) -> None:
        self.job = job
        self.note = note
        self.site_of = {client: site for site, clients in job.scenario.sites.items() for client in clients}
        self.hosts = [self.new_host(place) for place in places]

    def new_host(self, place: Place) -> Host:
        options: dict[str, Any] = {
            "num_cpus": place.cpus,
            "num_gpus": place.gpus,
            "scheduling_strategy": "SPREAD",
        }
        if place.site is not None:
            options["label_selector"] = {"site": place.site}
        actor: Any = ray.remote(ClientHost).options(**options).remote(self.job, place.site)
        return Host(actor, place, actor.pid.remote(), actor.ready.remote())

    def wait_for_room(self) -> None:
        """Until every host can work; a person is told where that takes long."""
        placed = [host.placed for host in self.hosts]
        there, waiting = ray.wait(placed, num_returns=len(placed), timeout=PLACEMENT_TIMEOUT_S)
        if waiting:
            have = f"{len(there)} of {len(self.hosts)} client actors have some"
            self.note(f"waiting for room on the cluster: {have}")
        ray.get([host.ready for host in self.hosts])

    def share_out(self, clients: Sequence[int], samples: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Which host trains which clients: the gangs with most to do first, each at the host of its site that
        has least to do so far. Hosts by number; those without clients are left out."""
        load = [0] * len(self.hosts)
        given = [list[int]() for _ in self.hosts]
        hosts_at: dict[str | None, list[int]] = {}
        for i, host in enumerate(self.hosts):
            hosts_at.setdefault(host.place.site, []).append(i)
        scenario = self.job.scenario
        units = gangs(scenario, clients, samples.__getitem__)
        work = {unit[0]: sum(scenario.local_samples(c, samples[c]) for c in unit) for unit in units}
        for unit in sorted(units, key=lambda unit: (-work[unit[0]], unit[0])):
            i = min(hosts_at[self.site_of.get(unit[0])], key=load.__getitem__)
            load[i] += work[unit[0]] + len(unit)  # a client without work is work
            given[i] += unit
        return [(i, some) for i, some in enumerate(given) if some]

    def host_of(self, client: int) -> Host:
        hosts = [host for host in self.hosts if host.place.site == self.site_of.get(client)]
        return hosts[client % len(hosts)]

    def heal(self, all_anew: bool) -> None:
        """New hosts for those that died, or for all. One that finds no room in time is given up, where
        another serves its site."""
        if all_anew:
            for host in self.hosts:
                ray.kill(host.actor)
        alive = [host for host in self.hosts if not all_anew and self._answers(host)]
        new = [self.new_host(host.place) for host in self.hosts if host not in alive]
        placed: list[Any] = []
        if new:
            waited_for = [host.placed for host in new]
            placed, _ = ray.wait(waited_for, num_returns=len(new), timeout=PLACEMENT_TIMEOUT_S)
        self.hosts = alive + [host for host in new if host.placed in placed]
        for host in new:
            if host.placed not in placed:
                self._without_room(host)

    def _without_room(self, host: Host) -> None:
        """Gives a new host's clients to others of its site, or waits for it."""
        site = host.place.site
        if any(other.place.site == site for other in self.hosts):
            at = f" at site {site}" if site else ""
            self.note(f"no room for a lost actor{at}: its clients go to the others")
            ray.kill(host.actor)
            return
        labelled = f" with the label site={site}" if site else ""
        self.note(f"waiting for a node{labelled}: no actor is left for its clients")
        ray.get(host.ready)
        self.hosts.append(host)

    def _answers(self, host: Host) -> bool:
        """Whether a host is there still. Ray first calls it unavailable, and dead only once the node's pulse
        is missed."""
        for _ in range(int(ACTOR_DEATH_TIMEOUT_S)):
            host.ready = host.actor.ready.remote()
            try:
                ray.get(host.ready)
                return True
            except ActorUnavailableError:
                time.sleep(1)
            except RayActorError:
                return False
        ray.kill(host.actor)
        return False
