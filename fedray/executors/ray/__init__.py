"""Clients and server as Ray actors: a step is an actor call, an edge an object reference.

The driver wires references and never holds a buffer. The actors are in actors.py.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fedray.executors import (
    DataFailure,
    EvaluationHandle,
    Job,
    ServerRestarted,
    StepFailed,
    TrainReport,
    chains,
    to_paint,
)
from fedray.executors.ray.actors import ClientHost, EvaluatorHost, Part, ServerHost
from fedray.executors.ray.connection import cluster_nodes, connect
from fedray.executors.split import Ask, ask, failed
from fedray.planning.placement import Place, pack, refuse_crowded
from fedray.planning.round import Shared
from fedray.planning.workload import Workload
from fedray.randomness import SERVER
from fedray.runs.folder import Saved
from fedray.scenario.base import Refused
from fedray.scenario.topology import Parallel, Split
from fedray.schedule import Schedule

HEARD_S = 2.0  # about how often a person should hear of clients that are done
DEATH_S = 60.0  # how long a host may be unavailable before it is taken for dead
# how long an actor may look for room before a person is told, and others take a lost one's clients
PLACING_S = 20.0
SERVER_CPUS = 0.0  # server and evaluator wait while clients work, or fill what they leave


@dataclass
class Host:
    """A client actor as the driver knows it."""

    actor: Any
    place: Place
    placed: Any  # a reference to its process: it has found room
    ready: Any  # a reference to its node: it can work


class Wired(NamedTuple):
    """A round that has been submitted: references to what will come of it."""

    reports: list[tuple[int, Any]]  # with the client that is to blame where one does not come
    buffer: Any
    state: Any
    own_report: Any  # the server's, once both are there; None where it trained nothing itself
    client_states: dict[int, Any]
    reduced: list[Any]  # that each host has reduced, where they do


class RayExecutor:
    """Hosts are stateless towards clients, so a lost one needs no rescue: its round is done again by those
    there are."""

    def __init__(self, job: Job, note: Callable[[str], None] = print) -> None:
        self.job, self.note = job, note
        self.connection = connect()
        nodes = cluster_nodes()
        if self.connection.local:
            refuse_crowded(job.scenario, nodes)
        self.packing = pack(job.scenario, nodes)
        for site in job.scenario.sites:
            if not any(node.site == site for node in nodes):
                expected = f"one (ray start ... --labels site={site})"
                raise Refused(
                    f"data.sites.{site}", f"no node of the cluster with the label site={site}", expected
                )
        self.here = ray.get_runtime_context().get_node_id()
        self.site_of = {client: site for site, clients in job.scenario.sites.items() for client in clients}
        self.group: str | None = None  # in which the hosts reduce among themselves
        gpus_here = next(
            node["Resources"].get("GPU", 0) for node in ray.nodes() if node["NodeID"] == self.here
        )
        # Before the hosts, which take all the room there is.
        self.evaluator = self._beside(EvaluatorHost, self.packing.evaluator_gpus if gpus_here else 0)
        self.hosts = [self._new_host(place) for place in self.packing.places]
        self.server = self._beside(ServerHost, self.packing.server_gpus if gpus_here else 0)
        self.splits, self.attempt = isinstance(job.scenario.topology, Split), 0
        first = self.server if self.splits else self.hosts[0].actor
        self.initial, self.layout, self.initial_state = first.initial.options(num_returns=3).remote()

    def _new_host(self, place: Place) -> Host:
        options: dict[str, Any] = {
            "num_cpus": place.cpus,
            "num_gpus": place.gpus,
            "scheduling_strategy": "SPREAD",
        }
        if place.site is not None:
            options["label_selector"] = {"site": place.site}
        actor: Any = ray.remote(ClientHost).options(**options).remote(self.job, place.site)
        return Host(actor, place, actor.pid.remote(), actor.ready.remote())

    def _beside(self, kind: type, num_gpus: float) -> Any:
        """An actor on the driver's own node, where the run folder is. It keeps nothing, so Ray may restart
        it."""
        here = NodeAffinitySchedulingStrategy(self.here, soft=False)
        retries = self.job.scenario.runtime.failures.retries
        options: dict[str, Any] = {
            "max_restarts": retries,
            "max_task_retries": retries,
            "scheduling_strategy": here,
        }
        # a thread for all that may wait there
        if kind is ServerHost and isinstance(split := self.job.scenario.topology, Split):
            options["max_concurrency"] = self.job.scenario.population.asked * split.micro_batches + 2
        return ray.remote(kind).options(num_cpus=SERVER_CPUS, num_gpus=num_gpus, **options).remote(self.job)

    def describe(self) -> str:
        n, nodes = len(self.hosts), len({ray.get(host.ready) for host in self.hosts})
        gpus = " or ".join(f"{g:g}" for g in sorted({host.place.gpus for host in self.hosts}) if g)
        where = f" on {nodes} nodes" if nodes > 1 else ""
        return f"Ray, {n} client actor{'s' * (n > 1)}{where}{f' of {gpus} GPU' if gpus else ''} and a server"

    def workload(self) -> Workload:
        counted = self.hosts[-1].actor.workload.remote()
        placed, waiting = ray.wait(
            [host.placed for host in self.hosts], num_returns=len(self.hosts), timeout=PLACING_S
        )
        if waiting:
            self.note(
                f"waiting for room on the cluster: {len(placed)} of {len(self.hosts)} client actors have some"
            )
        ray.get([host.ready for host in self.hosts])
        self.server.ready.remote()  # it imports while the work is counted, not while the hosts import
        workload: Any = ray.get(counted)
        return workload

    def survey(self) -> tuple[list[int], dict[str, Any]]:
        first = {host.place.site: host for host in reversed(self.hosts)}
        found = ray.get([host.actor.survey.remote() for host in first.values()])
        held = {client: n for part, _, _ in found for client, n in part.items()}
        for refused in (r for _, bad, _ in found for r in bad):
            raise refused
        data = {
            f"{name} at {site}": value
            for site, (*_, facts) in zip(first, found, strict=True)
            for name, value in facts.items()
        }
        return [held[client] for client in range(len(held))], data

    def begin(self, shared: Shared) -> None:
        self.shared, self.buffer = shared, self.initial
        self.parts = 8  # in which a host is asked for its clients, until it is known how long a round takes
        self.state: Any = self.initial_state
        self.can_train = len(shared.eligible(self.job.scenario))
        # references; Ray spills to disk what its memory does not hold
        self.client_states: dict[int, Any] = {}
        self.changed: set[int] = set()  # since the last checkpoint

    def restore(self, folder: Path, saved: Saved) -> None:
        buffer, state, whole = self.server.restore.options(num_returns=3).remote(self.layout, folder, saved)
        ray.get(whole)
        self.buffer, self.state = buffer, state
        for client, name in saved.clients.items():
            self.client_states[client] = self.server.client_state.remote(folder, name, saved.files[name])
        # written anew: the checkpoint before the next one may be a damaged one
        self.changed = set(self.client_states)

    def run_round(self, schedule: Schedule) -> Iterator[TrainReport]:
        retries, given, start = self.job.scenario.runtime.failures.retries, set[int](), time.monotonic()
        attempt = 0
        while len(schedule.steps) > 1:
            stage: str = "training"
            client: int | None = None
            try:
                wired = self._wire_split(schedule) if self.splits else self._wire(schedule)
                pending, came = {reports: first for first, reports in wired.reports}, {}
                for _, reports in wired.reports:
                    # in a split the others may wait for one that fails: any is heard of at once
                    while reports not in came:
                        (ready,) = ray.wait([*pending], num_returns=1)[0] if self.splits else (reports,)
                        client = pending.pop(ready)
                        came[ready] = ray.get(ready)
                    for report in came[reports]:
                        if report.client not in given:
                            given.add(report.client)
                            yield report
                stage, client = "aggregating", None
                waiting = wired.reduced
                while waiting:  # one that dies leaves the others waiting: whichever fails first is heard of
                    (ready,), waiting = ray.wait(waiting, num_returns=1)
                    ray.get(ready)
                if (own := ray.get(wired.own_report)) is not None:
                    yield own
                break
            except RayError as e:
                cause = _cause(e)
                if self.splits:
                    self.server.abandon.remote()
                if isinstance(cause, StepFailed):
                    raise cause from None
                if isinstance(cause, DataFailure):  # of a split round: nothing has changed before its end
                    yield (report := failed(schedule, cause, self.shared.samples))
                    schedule, given = schedule.without(report.client), set()
                    continue
                if not isinstance(cause, RayError | ServerRestarted) or attempt == retries:
                    raise StepFailed.of(cause, schedule.round, stage, client, str(e)) from None
                self.note(
                    f"round {schedule.round}: {type(cause).__name__} while {stage}; it is done again, by the"
                    " actors there are"
                )
                self._heal()
                attempt += 1
        else:
            return
        self.parts = max(1, int((time.monotonic() - start) / HEARD_S))
        self.buffer, self.state = wired.buffer, wired.state
        self.client_states |= wired.client_states
        self.changed |= wired.client_states.keys()

    def _wire(self, schedule: Schedule) -> Wired:
        """Submits one round. Clients that meet only where their updates are added are one call a host; a
        relay's turns are a call each, and its last host adds."""
        scenario, round = self.job.scenario, schedule.round
        weight = sum(scenario.aggregation.weight(self.shared.samples[c]) for c in schedule.clients)
        runs, sums, reports = chains(schedule), [], []
        reduced: list[Any] = []
        states: dict[int, Any] = {}
        labels = to_paint(schedule, scenario, self.shared)
        here = labels.pop(SERVER, None)
        augmented, generated = (None, None), labels or None
        if SERVER in schedule.pictures:
            augmented = self.server.train_augmented.options(num_returns=2).remote(
                round, here, self.buffer, self.state
            )
        elif here is not None:
            generated = self.server.paint.remote(here)
        # numbers of the hosts that train; which part, its first client, its reports
        shared, in_parts = [], []
        for i, share in self._share_out([chain[0] for chain in runs if len(chain) == 1]):
            shared.append(i)
            size = -(-len(share) // self.parts)
            for start in range(0, len(share), size):
                clients, part = share[start : start + size], Part(start == 0, start + size >= len(share))
                old = [self.client_states.get(c) for c in clients] if scenario.aggregation.keeps_state else []
                call = self.hosts[i].actor.train_all.options(num_returns=2 + len(old))
                server = self.state if scenario.adds_to_master else {}
                total, report, *new = call.remote(
                    self.buffer, server, weight, round, clients, part, generated, *old
                )
                in_parts.append((start // size, clients[0], report))
                if new:  # kept on the driver's node: what only a lost node had, nobody could make again
                    kept = self.server.keep.options(num_returns=len(new)).remote(*new)
                    states |= dict(zip(clients, kept if len(new) > 1 else [kept], strict=True))
            sums.append(total)
        # as they come
        reports += [(client, report) for _, client, report in sorted(in_parts, key=lambda p: p[0])]
        for chain in (chain for chain in runs if len(chain) > 1):
            buffer, theirs = self.buffer, []
            for client in chain:
                buffer, report = (
                    self._host_of(client).actor.train.options(num_returns=2).remote(round, client, buffer)
                )
                theirs.append(report)
                reports.append((client, report))
            sums.append(
                self._host_of(chain[-1]).actor.add.remote(self.buffer, self.state, weight, buffer, *theirs)
            )
        if (
            isinstance(scenario.topology, Parallel)
            and scenario.topology.reduce == "allreduce"
            and len(self.hosts) > 1
        ):
            sums, reduced = self._allreduced(weight, dict(zip(shared, sums, strict=True)))
        aggregate = self.server.aggregate.options(num_returns=3)
        buffer, state, own = aggregate.remote(
            self.layout, self.buffer, self.state, round, self.can_train, *augmented, *sums
        )
        return Wired(reports, buffer, state, own, states, reduced)

    def _wire_split(self, schedule: Schedule) -> Wired:
        """Submits a split round: each actor does what it is asked for in the order of the schedule."""
        self.attempt += 1
        host_of = {
            c: self.hosts[i].actor for i, clients in self._share_out(schedule.clients) for c in clients
        }

        def asking(actor: Any) -> Ask:
            return lambda method, *arguments: (
                getattr(actor, method).options(num_returns=2 if method == "end" else 1).remote(*arguments)
            )

        asked = ask(
            schedule,
            self.buffer,
            self.state,
            self.attempt,
            lambda client: asking(host_of[client]),
            in_turn(self.server),
        )
        weights = [self.job.scenario.aggregation.weight(self.shared.samples[c]) for c in asked.ends]
        finish = self.server.finish.options(num_returns=3)
        arguments = (
            self.layout,
            self.buffer,
            self.state,
            schedule.round,
            self.can_train,
            self.attempt,
            list(asked.ends),
            weights,
        )
        buffer, state, own = finish.remote(*arguments, *asked.ends.values())
        return Wired(list(asked.reports.items()), buffer, state, own, {}, [])

    def _allreduced(self, weight: int, sums: dict[int, Any]) -> tuple[list[Any], list[Any]]:
        """The hosts' sums, added up among the hosts: what the server gets of them, and that each host is
        done."""
        if self.group is None:
            self.group = f"fedray-{uuid.uuid4().hex[:8]}"
            for rank, host in enumerate(self.hosts):
                host.actor.join.remote(self.group, len(self.hosts), rank)
        calls = [host.actor.allreduce.options(num_returns=2) for host in self.hosts]
        totals, done = zip(
            *(call.remote(self.group, weight, sums.get(i)) for i, call in enumerate(calls)), strict=True
        )
        return [totals[0]], list(done)

    def _share_out(self, clients: Sequence[int]) -> list[tuple[int, list[int]]]:
        """Clients to hosts by their numbers, the longest first, each to the host of its site that has least
        to do so far."""
        load, mine = [0] * len(self.hosts), [list[int]() for _ in self.hosts]
        hosts_at: dict[str | None, list[int]] = {}
        for i, host in enumerate(self.hosts):
            hosts_at.setdefault(host.place.site, []).append(i)
        work = {c: self.job.scenario.training.trained(self.shared.samples[c]) for c in clients}
        for client in sorted(clients, key=lambda c: (-work[c], c)):
            i = min(hosts_at[self.site_of.get(client)], key=load.__getitem__)
            load[i] += work[client] + 1  # a client without work is work
            mine[i].append(client)
        return [(i, given) for i, given in enumerate(mine) if given]

    def _host_of(self, client: int) -> Host:
        hosts = [host for host in self.hosts if host.place.site == self.site_of.get(client)]
        return hosts[client % len(hosts)]

    def _answers(self, host: Host) -> bool:
        """Whether a host is there still. Ray first calls it unavailable, and dead only once the node's pulse
        is missed."""
        for _ in range(int(DEATH_S)):
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

    def _heal(self) -> None:
        """New hosts for those that died. One that finds no room in time is given up, where another serves its
        site."""
        if self.group is not None:  # who waits for a member that is gone may wait for long: all begin anew
            for host in self.hosts:
                ray.kill(host.actor)
        alive = [host for host in self.hosts if self.group is None and self._answers(host)]
        self.group = None
        new = [self._new_host(host.place) for host in self.hosts if host not in alive]
        placed, _ = (
            ray.wait([h.placed for h in new], num_returns=len(new), timeout=PLACING_S) if new else ([], [])
        )
        self.hosts = alive + [h for h in new if h.placed in placed]
        for host in (h for h in new if h.placed not in placed):
            site = host.place.site
            if any(h.place.site == site for h in self.hosts):
                self.note(
                    f"no room for a lost actor{f' at site {site}' if site else ''}: its clients go to the"
                    " others"
                )
                ray.kill(host.actor)
                continue
            self.note(
                f"waiting for a node{f' with the label site={site}' if site else ''}: no actor is left for"
                " its clients"
            )
            ray.get(host.ready)
            self.hosts.append(host)

    def evaluate(self, grid: Path, base: bool = False) -> EvaluationHandle:
        if not self.job.scenario.has_evaluation:
            return EvaluationHandle(lambda: True, dict)
        looked: Any = self.evaluator.evaluate.remote(
            *((self.initial, self.initial_state) if base else (self.buffer, self.state)), grid
        )
        return EvaluationHandle(
            lambda: bool(ray.wait([looked], timeout=0)[0]), lambda: self._served(looked, "evaluating")
        )

    def audit(self, clients: Sequence[int], labels: Any, grid: Path) -> dict[str, Any]:
        parts = [self.hosts[i].actor.audit.remote(self.buffer, mine) for i, mine in self._share_out(clients)]
        found: dict[str, Any] = self._served(
            self.server.audit.remote(self.buffer, labels, grid, *parts), "judging the data"
        )
        return found

    def checkpoint(self, folder: Path, before: Path | None) -> Saved:
        changed, unchanged = sorted(self.changed), sorted(self.client_states.keys() - self.changed)
        states = [self.client_states[c] for c in changed]
        written = self.server.checkpoint.remote(
            self.layout, self.buffer, self.state, folder, before, unchanged, changed, *states
        )
        saved: Saved = self._served(written, "writing a checkpoint")
        self.changed = set()
        return saved

    def export(self, folder: Path) -> None:
        """By a client actor on the driver's node, where the run folder is and the whole model resident, or
        else the evaluator."""
        whole = [] if self.splits else self.hosts
        exporter = next((host.actor for host in whole if ray.get(host.ready) == self.here), self.evaluator)
        self._served(exporter.export.remote(self.buffer, self.state, folder), "writing the result")

    def _served(self, ref: Any, stage: str) -> Any:
        try:
            return ray.get(ref)
        except RayError as e:
            raise StepFailed.of(_cause(e), None, stage, None, str(e)) from None

    def close(self) -> None:
        for actor in (*(h.actor for h in self.hosts), self.server, self.evaluator):
            ray.kill(actor)
        self.connection.end()


def in_turn(server: Any) -> Ask:
    """Asks a split's server, whose calls are numbered in the order in which they are asked for (see
    actors.Turns)."""
    number = count()

    def asked(method: str, *arguments: Any) -> Any:
        if method == "begin":  # before any call can see that it has not begun
            return ray.get(server.begin.remote(*arguments))
        return server.go.remote(next(number), *arguments)

    return asked


def _cause(e: BaseException) -> BaseException:
    """What really happened: a task's failure wraps its cause, also the loss of an actor it waited for."""
    while isinstance(e, RayTaskError) and isinstance(e.cause, BaseException):
        e = e.cause
    return e
