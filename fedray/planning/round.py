"""Writes down the schedule of any round of a scenario: who takes part, in which topology and order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fedray.augmentation import labels
from fedray.data import Samples
from fedray.network.clock import without_garbage_collection
from fedray.network.geometry import nearest_groups
from fedray.network.ledger import Ledger
from fedray.network.links import RoundStart, TransferRequests
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.randomness import SERVER, generator
from fedray.scenario.augmentation import Augmentation, Fixed
from fedray.scenario.base import Refused
from fedray.scenario.scenario import Scenario
from fedray.scenario.topology import Parallel, Relay, Split
from fedray.schedule import Schedule
from fedray.topologies.genfl import ImageCounts, at_clients, at_server, at_server_broadcast
from fedray.topologies.parallel import parallel
from fedray.topologies.relay import (
    best_sidelink,
    random_groups,
    random_order,
    relay,
    restrict_to_reachable,
    two_opt_tour,
)
from fedray.topologies.split import splitfed, vanilla

NOTHING = Ledger()


@dataclass(frozen=True)
class Shared:
    """What the server knows of its clients before they train."""

    samples: Sequence[int]  # that each holds
    counts: np.ndarray | None = None  # of each label, as they report them [clients, labels]

    def eligible(self, scenario: Scenario) -> np.ndarray:
        """The clients that can be asked to train: a partition may leave some without samples."""
        if getattr(scenario.data.partition, "allow_empty", False):
            return np.flatnonzero(self.samples)
        return np.arange(scenario.population.clients)


def shared(scenario: Scenario, samples: Samples, held: Mapping[int, np.ndarray]) -> Shared:
    """As the clients report it, where somebody asks for labels."""
    asked = scenario.augmentation is not None or scenario.population.selection == "label_cover"
    return Shared(
        [len(held[c]) for c in range(len(held))], labels.reported(scenario, samples, held) if asked else None
    )


@without_garbage_collection()
def schedule_round(
    scenario: Scenario,
    radio: Radio,
    round: int,
    shared: Shared | None = None,
    work: Work | None = None,
    so_far: Ledger = NOTHING,
) -> Schedule:
    """Round t, counted from 1, which begins when what was `so_far` has ended.

    Raises:
        Refused: for a relay in which a device has nobody in range.
    """
    when = RoundStart(round, so_far.sim_time_s)
    clients = drawn(scenario, radio, when, shared, work, so_far)
    schedule = written(scenario, radio, when, clients, shared, work)
    return schedule.encoding(so_far.encoded) if work is not None and work.encode_flops else schedule


def written(
    scenario: Scenario,
    radio: Radio,
    when: RoundStart,
    clients: list[int],
    shared: Shared | None,
    work: Work | None = None,
) -> Schedule:
    """The round of these clients. `work` for a relay whose hops may be lost for what they carry."""
    topology, round = scenario.topology, when.round_number
    if scenario.augmentation is not None:
        assert shared is not None
        return _augmented(scenario, radio, scenario.augmentation, round, clients, shared)
    enough = scenario.population.clients_per_round if scenario.population.over_select else None
    if isinstance(topology, Parallel):
        return parallel(round, clients, topology.reduce == "allreduce", scenario.network.deadline_s, enough)
    if isinstance(topology, Split):
        assert shared is not None
        sizes = {k: scenario.training.batches(shared.samples[k]) for k in clients}
        if topology.variant == "vanilla":
            order = generator(scenario.seed, round, SERVER, "order").permutation(clients)
            return vanilla(
                round, {int(k): sizes[k] for k in order}, topology.tail is not None, topology.micro_batches
            )
        return splitfed(
            round,
            sizes,
            topology.tail is not None,
            topology.micro_batches,
            scenario.network.deadline_s,
            enough,
        )
    return _relayed(scenario, topology, radio, when, clients, work)


def drawn(
    scenario: Scenario,
    radio: Radio,
    when: RoundStart,
    shared: Shared | None,
    work: Work | None = None,
    so_far: Ledger = NOTHING,
) -> list[int]:
    """The clients that are asked, of those that are there and free: as `population.selection` says, by
    default at random."""
    population, rng = scenario.population, generator(scenario.seed, when.round_number, SERVER, "clients")
    eligible = np.arange(population.clients) if shared is None else shared.eligible(scenario)
    among = radio.devices.available(when.round_number, eligible)
    if so_far.busy:
        among = np.setdiff1d(among, so_far.busy_clients)
    n = min(population.clients_selected, len(among))
    if n == 0:
        return []
    if population.selection == "label_cover":
        assert shared is not None
        assert shared.counts is not None
        chosen: np.ndarray = np.array(labels.covering(shared.counts, among, n, rng))
    elif population.selection == "round_robin":
        turn = np.searchsorted(among, eligible[(when.round_number - 1) * n % len(eligible)])
        chosen = np.roll(among, -turn)[:n]
    elif population.selection == "proportional_fair":
        assert work is not None
        chosen = among[np.lexsort((rng.random(len(among)), -_speedups(radio, when, work, among, n)))[:n]]
    elif population.selection == "fedcs":  # Nishio and Yonetani 2019: as many as finish before the deadline
        assert work is not None
        takes = radio.finish_times_s(when, work, among, so_far.encoded)
        fastest = among[np.argsort(takes(n), kind="stable")[:n]]
        takes = radio.finish_times_s(when, work, fastest, so_far.encoded)
        low, high = 1, n  # the more there are, the less of the band has each
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (
                (middle, high)
                if takes(middle)[:middle].max() <= (scenario.network.deadline_s or np.inf)
                else (low, middle - 1)
            )
        chosen = fastest[:low]
    else:
        chosen = rng.choice(among, n, replace=False)
    return sorted(int(c) for c in chosen)


def _speedups(radio: Radio, when: RoundStart, work: Work, clients: np.ndarray, at_once: int) -> np.ndarray:
    """How much faster than at its mean rate each client's uplink of this round would be, over an equal share
    of the band."""
    uplink = radio.links["uplink"]
    assert uplink.fades
    nbytes = np.array([work.send_bytes("uplink", c) for c in clients.tolist()])
    ones = np.ones(len(clients), int)
    requests = TransferRequests(clients, SERVER * ones, nbytes, ones, ones / at_once, 0 * ones)
    return uplink.fading_speedup(when, requests)


def _relayed(
    scenario: Scenario, topology: Relay, radio: Radio, when: RoundStart, clients: list[int], work: Work | None
) -> Schedule:
    rng = generator(scenario.seed, when.round_number, SERVER, "order")
    if not clients:
        return relay(when.round_number, [], random_order, rng)
    chains = min(topology.chains, len(clients))
    if topology.groups == "nearest":
        assert radio.geometry is not None
        groups = nearest_groups(radio.geometry.at(when.time_s), clients, chains)
    else:
        groups = random_groups(clients, chains, rng)
    rates = partial(radio.sidelink_rates_bps, when)
    order = {"random": random_order, "best_sidelink": best_sidelink(rates), "tour": two_opt_tour(rates)}[
        topology.order
    ]
    if radio.links["sidelink"].reaches_all:
        return relay(when.round_number, groups, order, rng)
    reaches = partial(radio.sidelink_reaches, when)
    for members in groups:
        for k in members:
            others = [c for c in members if c != k]
            if others and not reaches(k, others).any():
                raise _alone(radio, when, k, others)
    at_once = sum(len(members) > 1 for members in groups)  # hops, as the clock counts them
    share = 1 / max(1, at_once)

    def arrives(sender: int, receiver: int) -> bool:
        nbytes = 1 if work is None else work.send_bytes("sidelink", sender)
        return radio.hop_arrives(when, sender, receiver, nbytes, share)

    return relay(when.round_number, groups, restrict_to_reachable(reaches, order), rng, arrives)


def _alone(radio: Radio, when: RoundStart, client: int, others: list[int]) -> Refused:
    assert radio.geometry is not None
    places = radio.geometry.at(when.time_s)
    far = np.linalg.norm(places[others] - places[client], axis=1)
    nearest_ = f"the nearest, client {others[int(np.argmin(far))]}, is {far.min():.0f} m away"
    got = f"nobody in range of client {client} in round {when.round_number}: {nearest_}"
    return Refused(
        "network.sidelink",
        got,
        "devices nearer to each other, more power, or chains of their own (topology.groups: nearest)",
    )


def _augmented(
    scenario: Scenario, radio: Radio, section: Augmentation, round: int, clients: list[int], shared: Shared
) -> Schedule:
    """GenFL's round. What a client already has follows from the rounds it took part in."""
    assert shared.counts is not None
    names = shared.counts.shape[1]

    def pictures(before: int, now: int) -> ImageCounts:
        had, have = labels.painted(section, names, before), labels.painted(section, names, now)
        return ImageCounts(have - had, have)

    here = pictures(round - 1, round)
    if section.at == "server":
        kappas = section.weighting.kappas(round, scenario.training.rounds) or (1, 1)
        paints = not (isinstance(section.weighting, Fixed) and section.weighting.kappa_2 == 0)
        return at_server(
            round, clients if kappas[0] else [], here if paints else ImageCounts(0, 0), kappas[1] != 0
        )
    turns = [
        (t, set(drawn(scenario, radio, RoundStart(t, 0.0), shared)).intersection(clients))
        for t in range(1, round)
    ]
    if section.at == "server_broadcast":
        last = {k: max((t for t, them in turns if k in them), default=0) for k in clients}
        return at_server_broadcast(round, clients, here.new, {k: pictures(last[k], round) for k in clients})
    past = {k: sum(k in them for _, them in turns) for k in clients}
    return at_clients(round, clients, {k: pictures(past[k], past[k] + 1) for k in clients})
