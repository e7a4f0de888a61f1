"""Submits a round: a step is an actor call, an edge an object reference. Nothing here waits for a result."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import ray

from fedray.executors import chains, client_weights, companion_round, last_validators, secure_for
from fedray.executors.ray.actors import Part
from fedray.executors.ray.driver import Driver
from fedray.executors.split import Ask, ask
from fedray.executors.versions import Start, by_start
from fedray.planning.gangs import gangs
from fedray.scenario.kinds import implementation
from fedray.schedule import Schedule

NO_NODES: Mapping[int, Any] = {}


class SubmittedRound(NamedTuple):
    """References to what will come of a round."""

    reports: list[tuple[int, Any]]  # with the client that is to blame where one does not come
    buffer: Any
    state: Any
    own_report: Any  # the server's, once both are there; None where it trained nothing itself
    client_states: dict[int, Any]
    reduced: list[Any]  # that each host has reduced, where they do
    nodes: Mapping[int, Any] = NO_NODES  # their models, where there are several


class ParallelParts(NamedTuple):
    """The clients that meet only where their updates are added, submitted."""

    accumulators: dict[int, Any]  # by host
    reports: list[tuple[int, Any]]
    states: dict[int, Any]


def submit(driver: Driver, schedule: Schedule) -> SubmittedRound:
    """Clients that meet only where their updates are added are one call a host, or one a part of it; a
    relay's local updates are a call each, and its last host adds."""
    scenario = driver.job.scenario
    weight = sum(client_weights(scenario, schedule, driver.shared.samples).values())
    companion = companion_round(schedule, scenario, driver.shared)
    server = driver.server
    trained: list[Any] = [None, None]
    extra = companion.client_samples
    if companion.train is not None:
        call = server.train_companion.options(num_returns=2)
        trained = call.remote(schedule.round, companion.train, driver.buffer, driver.state)
    elif companion.prepare is not None:
        extra = server.prepare.remote(companion.prepare, driver.state)
    routes = chains(schedule)
    alone = [chain[0] for chain in routes if len(chain) == 1]
    secure = secure_for(scenario, schedule)
    parts = _submit_parallel(driver, schedule, alone, weight, extra, secure)
    partials = list(parts.accumulators.values())
    reports = list(parts.reports)
    states = dict(parts.states)
    for chain in routes:
        if len(chain) > 1:
            partial, their_reports = _submit_relay(driver, schedule, chain, weight, states)
            partials.append(partial)
            reports += their_reports
    if schedule.models is not None:
        return _submit_mixing(driver, schedule, partials, reports, states)
    reduced: list[Any] = []
    if scenario.topology.reduces_among_clients and len(driver.hosts) > 1:
        partials, reduced = _submit_allreduce(driver, weight, parts.accumulators)
    aggregate = server.aggregate.options(num_returns=3)
    buffer, state, own_report = aggregate.remote(
        driver.layout,
        driver.buffer,
        driver.state,
        schedule.round,
        driver.can_train,
        *trained,
        *partials,
        secure=secure,
        tier=schedule.tier,
        receive_snr=schedule.receive_snr,
    )
    if companion.choose is not None:
        state = server.choose.remote(companion.choose, state, *(report for _, report in reports))
    return SubmittedRound(reports, buffer, state, own_report, states, reduced)


def _submit_parallel(
    driver: Driver, schedule: Schedule, clients: Sequence[int], weight: int, extra: Any, secure: Any
) -> ParallelParts:
    """A host is asked for its clients part by part, so that a person hears of those that are done.

    Args:
        driver: whose hosts train.
        schedule: of the round.
        clients: that train side by side.
        weight: of all clients of the round.
        extra: samples that join each client's own, or a reference to them.
        secure: the round's secure aggregation, or None.
    """
    scenario = driver.job.scenario
    server_state = driver.state if scenario.shows_server_state else {}
    accumulators: dict[int, Any] = {}
    in_parts = []  # which part, its first client, its reports
    states: dict[int, Any] = {}
    for i, share in driver.share_out(clients, driver.shared.samples):
        calls = _parts(driver, schedule, share)
        for n, (start, some) in enumerate(calls):
            part = Part(n == 0, n == len(calls) - 1)
            before = [driver.client_states.get(c) for c in some] if scenario.keeps_client_state else []
            call = driver.hosts[i].actor.train_all.options(num_returns=2 + len(before))
            total, report, *new = call.remote(
                driver.versions.base(schedule, start, driver.buffer), server_state, weight,
                schedule.round, some, part, extra, *before,
                secure=secure, weights=schedule.weights, **_aged(driver, start),
                node_of=None if schedule.models is None else schedule.models.node_of,
            )  # fmt: skip
            in_parts.append((n, some[0], report))
            states |= _kept_on_driver(driver, some, new)
        accumulators[i] = total
    as_they_come = sorted(in_parts, key=lambda entry: entry[0])
    return ParallelParts(accumulators, [(client, report) for _, client, report in as_they_come], states)


def _parts(driver: Driver, schedule: Schedule, clients: Sequence[int]) -> list[tuple[Start, list[int]]]:
    """A host's clients in the parts in which it is asked for them, each with what they begin with."""
    parts: list[tuple[Start, list[int]]] = []
    for begin, alike in by_start(schedule, clients):
        units = gangs(driver.job.scenario, alike, driver.shared.samples.__getitem__)
        size = -(-len(units) // driver.parts)
        for start in range(0, len(units), size):
            parts.append((begin, [client for unit in units[start : start + size] for client in unit]))
    return parts


def _aged(driver: Driver, start: Start) -> dict[str, Any]:
    """How old the model is that clients began with, for a host; nothing where they begin together."""
    section = driver.job.scenario.topology.asynchronous
    if section is None:
        return {}
    newest = driver.buffer if implementation(section).needs_drift else None
    return {"staleness": start.staleness, "newest": newest}


def _kept_on_driver(driver: Driver, clients: Sequence[int], new: Sequence[Any]) -> dict[int, Any]:
    """Clients' new states, on the driver's node: what only a lost node had, nobody could make again."""
    if not new:
        return {}
    kept = driver.server.keep.options(num_returns=len(new)).remote(*new)
    return dict(zip(clients, kept if len(new) > 1 else [kept], strict=True))


def _submit_mixing(
    driver: Driver,
    schedule: Schedule,
    partials: Sequence[Any],
    reports: list[tuple[int, Any]],
    states: dict[int, Any],
) -> SubmittedRound:
    """The end of a round of several models.

    Args:
        driver: whose server mixes.
        schedule: of the round.
        partials: what each host accumulates.
        reports: of clients.
        states: the clients' new ones, where they keep some.
    """
    mixing = schedule.models
    assert mixing is not None
    before = [driver.versions.node(node) for node in mixing.kept] or [driver.buffer]
    call = driver.server.mix.options(num_returns=3 + len(mixing.kept))
    buffer, state, own, *buffers = call.remote(
        driver.layout, driver.state, schedule.round, driver.can_train, mixing, *before, *partials
    )
    after = dict(zip(mixing.kept, buffers, strict=True))
    return SubmittedRound(reports, buffer, state, own, states, [], after)


def _submit_relay(
    driver: Driver, schedule: Schedule, chain: Sequence[int], weight: int, states: dict[int, Any]
) -> tuple[Any, list[tuple[int, Any]]]:
    """One relay's local updates, and the sum that its last host makes.

    Args:
        driver: whose hosts train.
        schedule: of the round.
        chain: its clients, in their order.
        weight: of all clients of the round.
        states: gets the clients' new ones, where they keep some.
    """
    keeps = driver.job.scenario.keeps_client_state
    buffer = driver.buffer
    reports = []
    for client in chain:
        actor = driver.host_of(client).actor
        call = (actor.validate_and_train if schedule.validates else actor.train).options(num_returns=3)
        before = driver.client_states.get(client) if keeps else None
        buffer, report, new = call.remote(schedule.round, client, buffer, before)
        reports.append((client, report))
        if keeps:
            states |= _kept_on_driver(driver, [client], [new])
    if schedule.validates:
        validator = last_validators(schedule).get(chain[-1])
        host = driver.host_of(chain[-1] if validator is None else validator)
        before = states.get(validator) if keeps and validator is not None else None
        call = host.actor.validate.options(num_returns=2)
        buffer, report = call.remote(schedule.round, validator, buffer, reports[-1][1], before)
        reports[-1] = (chain[-1], report)
    last = driver.host_of(chain[-1]).actor
    partial = last.add.remote(driver.buffer, driver.state, weight, buffer, *(r for _, r in reports))
    return partial, reports


def _submit_allreduce(
    driver: Driver, weight: int, accumulators: dict[int, Any]
) -> tuple[list[Any], list[Any]]:
    """What the hosts have accumulated, added up among the hosts: what the server gets of it, and that each
    host is done."""
    if driver.group is None:
        driver.group = f"fedray-{uuid.uuid4().hex[:8]}"
        for rank, host in enumerate(driver.hosts):
            host.actor.join.remote(driver.group, len(driver.hosts), rank)
    calls = [host.actor.allreduce.options(num_returns=2) for host in driver.hosts]
    returned = [call.remote(driver.group, weight, accumulators.get(i)) for i, call in enumerate(calls)]
    return [returned[0][0]], [done for _, done in returned]


def submit_split(driver: Driver, schedule: Schedule) -> SubmittedRound:
    """Each actor does what it is asked for in the order of the schedule."""
    driver.attempt += 1
    shares = driver.share_out(schedule.clients, driver.shared.samples)
    actor_of = {client: driver.hosts[i].actor for i, clients in shares for client in clients}

    def asking(client: int) -> Ask:
        def call(method: str, *arguments: Any) -> Any:
            returns = 3 if method == "end" else 1
            return getattr(actor_of[client], method).options(num_returns=returns).remote(*arguments)

        return call

    server = in_turn(driver.server)
    keeps = driver.job.scenario.keeps_client_state
    before = driver.client_states if keeps else {}
    submitted = ask(schedule, driver.buffer, driver.state, before, driver.attempt, asking, server)
    weight = driver.job.scenario.aggregation.weight
    weights = [weight(driver.shared.samples[c]) for c in submitted.ends]
    buffer, state, own_report = driver.server.finish.options(num_returns=3).remote(
        driver.layout, driver.buffer, driver.state, schedule.round, driver.can_train,
        driver.attempt, list(submitted.ends), weights, *submitted.ends.values(),
    )  # fmt: skip
    states = submitted.states
    kept = _kept_on_driver(driver, list(states), list(states.values())) if keeps else {}
    return SubmittedRound(list(submitted.reports.items()), buffer, state, own_report, kept, [])


def in_turn(server: Any) -> Ask:
    """Asks a split's server, whose calls are numbered in the order in which they are asked for (see
    turns.py)."""
    number = count()

    def call(method: str, *arguments: Any) -> Any:
        if method == "begin":  # before any call can see that it has not begun
            return ray.get(server.begin.remote(*arguments))
        return server.go.remote(next(number), *arguments)

    return call
