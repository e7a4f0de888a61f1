"""Amounts of generated pictures, shares of the uplink's band and CPU frequencies together. No torch here."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import NamedTuple

import numpy as np

from fedray.augmentation.amount import Amount, AmountContext, RoundCosts
from fedray.augmentation.fimi import needed_samples
from fedray.augmentation.topology import ImageCounts, at_clients, at_server_broadcast
from fedray.network.allocations import Senders
from fedray.network.clock import time_round
from fedray.network.least_energy import Generated, Tasks, Uploads, least_energy, with_generated
from fedray.network.transfers import uplink_senders
from fedray.randomness import SERVER_ID
from fedray.schedule import Schedule
from fedray.steps import Generate, Send

PROBED = 1000  # pictures, by which what one takes is told


class ClientCosts(NamedTuple):
    """What the clients of a round do [n], and what a picture adds to it."""

    tasks: Tasks
    uploads: Uploads
    picture: Generated

    def of(self, some: np.ndarray) -> "ClientCosts":
        """Those of some clients, by a mask [n]."""
        values = {field.name: getattr(self.picture, field.name) for field in fields(self.picture)}
        own = {name: value[some] for name, value in values.items() if isinstance(value, np.ndarray)}
        return ClientCosts(self.tasks.of(some), self.uploads.of(some), Generated(**(values | own)))


class JointAmount(Amount):
    """The amounts of the least energy (FIMI, Li et al. 2024). Shares and frequencies are the uplink's
    allocation's, which finds for these amounts what was found with them."""

    def total(self, context: AmountContext) -> int:
        """Of the server, which paints as many as the client needs that needs most."""
        return max([context.had, *self.each(context).values()])

    def each(self, context: AmountContext) -> dict[int, int]:
        section = self.section
        had = {client: context.pictures.get(client, 0) for client in context.clients}
        held = sum(context.held[client] + section.quality * n for client, n in had.items())
        missing = (needed_samples(section.error, section.scale, section.exponent) - held) / section.quality
        if context.costs is None or missing <= 0 or not had:
            return had
        new = _whole(self._client_costs(context, context.costs, had, missing))
        return {client: n + int(more) for (client, n), more in zip(had.items(), new, strict=True)}

    def _client_costs(
        self, context: AmountContext, costs: RoundCosts, had: Mapping[int, int], missing: float
    ) -> ClientCosts:
        """What a round without new pictures takes, and how much more one with PROBED of them each."""
        round_number = costs.start.round_number
        probe = self._schedule(round_number, had, PROBED)
        before = _senders(self._schedule(round_number, had, 0), costs)
        tasks = before.tasks()
        probed = _senders(probe, costs).tasks()
        at_server = any(isinstance(step, Generate) and step.client == SERVER_ID for step in probe)
        server = costs.radio.server
        made_s = server.time_s(costs.work.generate_flops) if at_server else 0.0
        most = context.labels * self.augmentation.at_most
        already = np.array(list(had.values()))
        picture = Generated(
            needed=missing,
            most=np.maximum(0.0, most - already),
            cycles=(probed.cycles - tasks.cycles) / PROBED,
            seconds=np.maximum((tasks.left_s - probed.left_s) / PROBED - made_s, 0.0),
            joules=_sent_j(probe, costs, had) / PROBED / self.section.rounds,
            made_s=made_s,
            made_j=server.energy_j(costs.work.generate_flops) / self.section.rounds if at_server else 0.0,
            made=np.maximum(0.0, context.had - already),
        )
        return ClientCosts(tasks, Uploads.of_rate(before.bits, before.rate), picture)

    def _schedule(self, round_number: int, had: Mapping[int, int], new: int) -> Schedule:
        """A round in which each client gets so many new pictures."""
        given = {client: ImageCounts(new, n + new) for client, n in had.items()}
        if self.augmentation.at == "client":
            return at_clients(round_number, list(had), given)
        return at_server_broadcast(round_number, list(had), new, given)


def _senders(schedule: Schedule, costs: RoundCosts) -> Senders:
    loads = [costs.work.load(step) for step in schedule]
    waits_s = {i: wait_s for i, step in enumerate(schedule) if (wait_s := costs.work.wait_s(step))}
    return uplink_senders(schedule, loads, costs.radio, costs.start, waits_s)


def _sent_j(schedule: Schedule, costs: RoundCosts, clients: Mapping[int, int]) -> np.ndarray:
    """Joules of sending each client its pictures [n]."""
    events = time_round(schedule, costs.work, costs.radio, costs.start.time_s)
    joules = dict.fromkeys(clients, 0.0)
    for step, event in zip(schedule, events, strict=False):
        if isinstance(step, Send) and step.pictures:
            joules[step.receiver] = event.energy_j
    return np.array(list(joules.values()))


def _whole(costs: ClientCosts) -> np.ndarray:
    """New pictures of each client [n], whole ones: as many as are missing, or as there is time for; none of
    one who is late without."""
    new = np.zeros(len(costs.tasks.cycles))
    able = np.isfinite(costs.uploads.least_share(costs.tasks.spare_s))
    tasks, uploads, picture = costs.of(able)
    band = float(able.mean())
    best = least_energy(tasks, uploads, picture, band) if able.any() else None
    if best is None:
        return new
    amount = np.minimum(best.generated, picture.most)
    whole = np.floor(amount + 1e-6)
    rest = math.ceil(min(picture.needed, float(amount.sum())) - 1e-6) - int(whole.sum())
    for i in np.argsort(whole - amount, kind="stable")[: max(0, rest)]:
        more = whole + (np.arange(len(whole)) == i)
        later = with_generated(tasks, picture, more)
        if more[i] <= picture.most[i] and uploads.least_share(later.spare_s).sum() <= band:
            whole = more
    new[able] = whole
    return new
