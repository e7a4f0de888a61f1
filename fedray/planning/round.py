"""Writes down the schedule of any round of a scenario: who takes part, and what they do."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from fedray.data.graph_file import read_graph
from fedray.ledger.agreement import agreement_s
from fedray.network.clock import without_garbage_collection
from fedray.network.geometry import nearest_groups
from fedray.network.ledger import Ledger
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.transfers import receive_snr, uplink_snrs_db
from fedray.network.work import Work
from fedray.planning.asked import NOTHING, available_clients, free_clients, select_clients
from fedray.planning.bidding import Decision, bids_of, decide_round, score_labels
from fedray.planning.contributions import evaluating, offer_budget
from fedray.planning.data_quality import quality_weights
from fedray.planning.shared import Shared
from fedray.randomness import SERVER, generator
from fedray.scenario.base import Refused
from fedray.scenario.kinds import implementation
from fedray.scenario.scenario import Scenario
from fedray.schedule import Schedule
from fedray.secure.graph import neighbours
from fedray.topologies.topology import Cells, RoundContext, Sharing, Topology


@without_garbage_collection()
def schedule_round(
    scenario: Scenario,
    radio: Radio,
    round_number: int,
    shared: Shared | None = None,
    work: Work | None = None,
    so_far: Ledger = NOTHING,
) -> Schedule:
    """A round's schedule.

    Args:
        scenario: whose.
        radio: its network.
        round_number: from 1.
        shared: what the server knows of its clients.
        work: what steps take.
        so_far: what the rounds before it cost; it begins when they have ended.

    Raises:
        Refused: for a relay in which a device has nobody in range.
    """
    start_s = so_far.sim_time_s
    if radio.devices.presence is not None:
        start_s = radio.devices.next_s(start_s, free_clients(scenario, shared, so_far))
    schedule = _schedule(scenario, radio, RoundStart(round_number, start_s), shared, work, so_far)
    waited_s = start_s - so_far.sim_time_s
    return replace(schedule, waited_s=waited_s) if waited_s else schedule


def _schedule(
    scenario: Scenario,
    radio: Radio,
    start: RoundStart,
    shared: Shared | None,
    work: Work | None,
    so_far: Ledger,
) -> Schedule:
    """The schedule of a round that begins so.

    Args:
        scenario: whose.
        radio: its network.
        start: which round, and when it begins.
        shared: what the server knows of its clients.
        work: what steps take.
        so_far: what the rounds before it cost.
    """
    if scenario.incentive is None:
        clients = select_clients(scenario, radio, start, shared, work, so_far)
        schedule = write_round(scenario, radio, start, clients, shared, work, so_far)
    else:
        assert shared is not None
        assert work is not None
        decision = _decision(scenario, radio, start, shared, work, so_far)
        schedule = write_round(scenario, radio, start, decision.clients, shared, work, so_far)
        schedule = replace(schedule, payments=decision.payments)
        if scenario.incentive.validation_images:
            schedule = evaluating(schedule, scenario.incentive)
        if decision.samples:
            schedule = schedule.using(decision.samples)
    if scenario.aggregation.weighs_by_quality:
        schedule = replace(schedule, weights=_quality_weights(schedule.clients, shared))
    if scenario.ledger is not None and scenario.ledger.consensus is not None:
        schedule = schedule.agreeing(agreement_s(scenario.ledger.consensus, start.round_number))
    if scenario.model.follows_uplink:
        schedule = schedule.over_the_air(uplink_snrs_db(schedule, radio, start))
    if scenario.network.uplink.superposes and schedule.clients:
        schedule = schedule.superposed(receive_snr(schedule, radio, start))
    if work is None:
        return schedule
    if scenario.aggregation.changes_base and scenario.topology.shares_uplink:
        schedule = schedule.stacking({c: _sent_down(c, work, so_far) for c in schedule.clients})
    if not work.encode_flops:
        return schedule
    schedule = schedule.encoding(so_far.encoded)
    given = scenario.model.class_images_from_server
    return schedule.giving_class_images(given) if given else schedule


def _sent_down(client: int, work: Work, so_far: Ledger) -> int:
    """Bytes that go down to a client where updates change base weights: the adapter, and what has changed
    since the client got the weights last, as the adapters that made it (they stand for their products, Wang
    et al. 2024) or whole, whichever is less.

    Args:
        client: by number.
        work: what steps take.
        so_far: what the rounds before it cost.
    """
    whole = work.send_bytes("downlink", client)
    return whole - work.change_bytes + min(work.change_bytes, so_far.missed_bytes(client))


def _decision(
    scenario: Scenario, radio: Radio, start: RoundStart, shared: Shared, work: Work, so_far: Ledger
) -> Decision:
    """Who takes part in a round for which clients bid, and what is paid.

    Args:
        scenario: with `incentive`.
        radio: its network.
        start: which round.
        shared: what the server knows of its clients.
        work: what steps take.
        so_far: what the rounds before it cost.
    """
    assert scenario.incentive is not None
    if scenario.incentive.chooses_clients:
        clients = available_clients(scenario, radio, start, shared, so_far)
    else:
        clients = np.array(select_clients(scenario, radio, start, shared, work, so_far), int)
    if shared.agreed is not None:
        return shared.agreed.decision(clients.tolist())
    if scenario.incentive.bids_for == "labels":
        assert shared.counts is not None
        assert shared.true_counts is not None
        counts = shared.counts[clients], shared.true_counts[clients]
        return score_labels(scenario, start.round_number, clients, *counts)
    if scenario.incentive.bids_for == "nothing":
        return offer_budget(scenario, radio, start, work, clients)
    bids = bids_of(scenario, radio, start, work, clients, shared.samples, so_far.encoded)
    return decide_round(scenario, start.round_number, bids, shared.samples)


def _quality_weights(clients: Sequence[int], shared: Shared | None) -> dict[int, int]:
    """What the clients of a round weigh by the quality of their data."""
    assert shared is not None
    assert shared.counts is not None
    samples = {client: shared.samples[client] for client in clients}
    return quality_weights(clients, samples, shared.counts, shared.errors)


def write_round(
    scenario: Scenario,
    radio: Radio,
    start: RoundStart,
    clients: list[int],
    shared: Shared | None,
    work: Work | None,
    so_far: Ledger,
) -> Schedule:
    """The schedule of the round of these clients.

    Args:
        scenario: whose.
        radio: its network.
        start: which round, and when it begins.
        clients: that take part.
        shared: what the server knows of its clients.
        work: for hops that may be lost for what they carry, and for what the server makes of time.
        so_far: what the rounds before it cost, and which pictures they left where.
    """
    planner = scenario.companion_planner()
    if planner is not None:
        schedule: Schedule = planner.schedule(start, clients, shared, so_far.pictures, radio, work)
        return schedule
    population = scenario.population

    def batches(client: int) -> list[int]:
        assert shared is not None
        return scenario.local_batches(client, shared.samples[client])

    place = scenario.adversary.place if scenario.adversary is not None else "random"
    attackers = scenario.attackers_in(start.round_number)
    topology: Topology = implementation(scenario.topology)(scenario.topology)
    bids_decide_order = scenario.incentive is not None and scenario.incentive.bids_for == "order"
    return topology.schedule(
        RoundContext(
            round_number=start.round_number,
            clients=sorted(clients),
            order=tuple(clients) if bids_decide_order else (),
            rng=partial(generator, scenario.seed, start.round_number, SERVER, "order"),
            batches=batches,
            deadline_s=scenario.network.deadline_s,
            min_updates=population.clients_per_round if population.over_select else None,
            sidelinks=RoundSidelinks(radio, start, work),
            first=attackers if place == "first" else (),
            last=attackers if place == "last" else (),
            population=population.clients,
            weights=() if shared is None else list(map(scenario.aggregation.weight, shared.samples)),
            sharing=_sharing(scenario, start.round_number, clients),
            neighbours=_neighbours(scenario, radio.folder),
            cells=partial(_cells, radio, start),
        )
    )


def _neighbours(scenario: Scenario, folder: Path) -> Mapping[int, Sequence[int]] | None:
    """To whom each client sends, where the scenario names a file of that."""
    graph = scenario.topology.graph_file
    if graph is None:
        return None
    return read_graph(graph, folder, "topology.graph.file", scenario.population.clients)


def _cells(radio: Radio, start: RoundStart) -> Cells:
    """Which cell serves whom as a round begins."""
    link = radio.links["uplink"]
    serving = link.cells(start, np.arange(radio.clients))
    return Cells(serving.tolist(), link.cell_count, link.idle_cells())


def _sharing(scenario: Scenario, round_number: int, clients: list[int]) -> Sharing | None:
    """Who shares masks with whom in a round of these clients."""
    section = scenario.secure_aggregation
    if section is None:
        return None
    near = neighbours(clients, section.neighbours, scenario.seed, round_number)
    return Sharing(near, section.least(scenario.population.clients_selected))


@dataclass(frozen=True)
class RoundSidelinks:
    """The links between clients in a round, as topologies ask for them."""

    radio: Radio
    start: RoundStart
    work: Work | None

    @property
    def reaches_all(self) -> bool:
        return self.radio.links["sidelink"].reaches_all

    def rates_bps(self, sender: int, receivers: Collection[int]) -> np.ndarray:
        return self.radio.sidelink_rates_bps(self.start, sender, receivers)

    def in_range(self, sender: int, receivers: Collection[int]) -> np.ndarray:
        return self.radio.sidelink_reaches(self.start, sender, receivers)

    def arrives(self, sender: int, receiver: int, share: float, buffers: int = 1) -> bool:
        nbytes = 1 if self.work is None else buffers * self.work.send_bytes("sidelink", sender)
        return self.radio.hop_arrives(self.start, sender, receiver, nbytes, share)

    def nearest_groups(self, clients: Sequence[int], n: int) -> list[list[int]]:
        assert self.radio.geometry is not None
        return nearest_groups(self.radio.geometry.at(self.start.time_s), clients, n)

    def refuse_alone(self, client: int, others: Sequence[int]) -> Refused:
        assert self.radio.geometry is not None
        places = self.radio.geometry.at(self.start.time_s)
        distance_m = np.linalg.norm(places[list(others)] - places[client], axis=1)
        nearest = (
            f"the nearest, client {others[int(np.argmin(distance_m))]}, is {distance_m.min():.0f} m away"
        )
        got = f"nobody in range of client {client} in round {self.start.round_number}: {nearest}"
        expected = (
            "devices nearer to each other, more power, or chains of their own (topology.groups: nearest)"
        )
        return Refused("network.sidelink", got, expected)
