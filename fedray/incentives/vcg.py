"""Vickrey-Clarke-Groves mechanisms: clients together with where the model is cut, and orders of a relay. The
outcome is the one with the greatest welfare W (values less costs as bid); a client is paid its bid for it,
and what its being there adds to W."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedray.incentives.incentive import Incentive, Offers, Outcome, not_negative
from fedray.scenario.incentive import MOST_IN_RELAY


class SplitAuction(Incentive):
    """The cut and the clients with the greatest sum of value less bid, with VCG payments."""

    def decide(self, offers: Offers) -> Outcome:
        chosen = split_auction(offers.values[:, None], offers.bids, offers.most)
        return Outcome(np.array(chosen.winners, int), chosen.payments, cut=chosen.cut)

    def winners_costs(self, outcome: Outcome, costs: np.ndarray) -> np.ndarray:
        own: np.ndarray = costs[outcome.winners, outcome.cut]
        return own


class RelayAuction(Incentive):
    """The order with the greatest sum of value less bid, with VCG payments."""

    def decide(self, offers: Offers) -> Outcome:
        n = len(offers.bids)
        if not n:
            return Outcome(np.empty(0, int), np.empty(0))
        hops = offers.bids.copy()
        np.fill_diagonal(hops, 0.0)
        chosen = relay_auction(hops, np.ones(n), offers.values, np.diag(offers.bids))
        order = np.array(chosen.order, int)
        return Outcome(order, chosen.payments[order])

    def winners_costs(self, outcome: Outcome, costs: np.ndarray) -> np.ndarray:
        order = outcome.winners
        own: np.ndarray = costs[order, np.append(order[1:], order[-1:])]
        return own


@dataclass(frozen=True)
class SplitOutcome:
    """Which cut, which clients, and what each is paid.

    Attributes:
        cut: the cut's number, from 0.
        winners: the clients that take part, ascending.
        payments: what each of them is paid, in money.
    """

    cut: int
    winners: list[int]
    payments: np.ndarray


def split_auction(
    values: Sequence[float] | np.ndarray, bids: Sequence[Sequence[float]] | np.ndarray, most: int
) -> SplitOutcome:
    """The cut and the clients with the greatest sum of value less bid; a client's bids are one a cut.

    Args:
        values: what a client's part is worth with each cut, in money [cuts], or each client's with any
            [clients, 1].
        bids: what each client says that its part costs it with each cut, in money [clients, cuts].
        most: how many clients may take part.

    Raises:
        ValueError: for a negative value or bid, or another number of bids than of cuts.
    """
    worth = not_negative("values", values)
    costs = not_negative("bids", bids)
    if costs.ndim != 2 or worth.shape[-1] not in (1, costs.shape[1]):
        raise ValueError(f"bids: got shape {costs.shape}, expected [clients, {worth.shape[-1]}], one a cut")
    surplus = worth - costs
    clients = np.arange(len(costs))
    cut, winners, welfare = _best_cut(surplus, clients, most)
    without = [_best_cut(surplus, np.delete(clients, i), most)[2] for i in winners]
    return SplitOutcome(cut, winners, costs[winners, cut] + welfare - np.array(without))


def _best_cut(surplus: np.ndarray, clients: np.ndarray, most: int) -> tuple[int, list[int], float]:
    """The cut, the clients and the welfare that are best among these clients; of equals, the first.

    Args:
        surplus: value less bid [all clients, cuts].
        clients: that may take part.
        most: how many of them.
    """
    best = np.sort(np.maximum(surplus[clients], 0), axis=0)[::-1][:most].sum(axis=0)
    cut = int(np.argmax(best))
    order = clients[np.argsort(-surplus[clients, cut], kind="stable")][:most]
    return cut, sorted(order[surplus[order, cut] > 0].tolist()), float(best[cut])


@dataclass(frozen=True)
class RelayOutcome:
    """In which order clients train, and what each is paid.

    Attributes:
        order: the clients that take part, the first first.
        payments: what each client is paid, in money [clients]; 0 for those that do not take part.
    """

    order: list[int]
    payments: np.ndarray


def relay_auction(
    joules: Sequence[Sequence[float]] | np.ndarray,
    prices: Sequence[float] | np.ndarray,
    value: float | np.ndarray,
    last: Sequence[float] | np.ndarray | None = None,
) -> RelayOutcome:
    """The order of a relay with the greatest welfare: what its clients are worth, less what its hops cost,
    each the joules of the hop x the price of the client that sends. Exact, by dynamic programming over the
    sets of clients (Held and Karp 1962); a client that costs more than it is worth is left out.

    Args:
        joules: of a hop from the client of the row to the one of the column [n, n].
        prices: what each client says that a joule costs it, in money [n].
        value: what a client's part is worth to the server, in money: of each [n], or one number for all.
        last: joules of each client if it is the last, such as of sending the model up [n]; None: 0.

    Raises:
        ValueError: for negative numbers, or more than 8 clients.
    """
    bids = not_negative("prices", prices)
    hops = not_negative("joules", joules) * bids[:, None]
    n = len(bids)
    if hops.shape != (n, n):
        raise ValueError(f"joules: got shape {hops.shape}, expected ({n}, {n}), a row and a column a client")
    if not 1 <= n <= MOST_IN_RELAY:
        raise ValueError(f"prices: got {n} clients, expected 1 to {MOST_IN_RELAY}: all orders are compared")
    values = np.broadcast_to(not_negative("value", np.asarray(value)), n)
    ends = bids * (np.zeros(n) if last is None else not_negative("last", last))
    routes = _cheapest_routes(hops, ends)
    welfare = {m: float(values[list(order)].sum() - cost) for m, (cost, order) in routes.items()}
    chosen = max(welfare, key=lambda members: welfare[members])
    order = list(routes[chosen][1])
    payments = np.zeros(n)
    for place, client in enumerate(order):
        own = hops[client, order[place + 1]] if place + 1 < len(order) else ends[client]
        without = max(w for members, w in welfare.items() if not members >> client & 1)
        payments[client] = own + welfare[chosen] - without
    return RelayOutcome(order, payments)


def _cheapest_routes(hops: np.ndarray, ends: np.ndarray) -> dict[int, tuple[float, tuple[int, ...]]]:
    """The cost and the order of the cheapest way through each set of clients, by the set's bits.

    Args:
        hops: what a hop costs [n, n].
        ends: what being the last costs each [n].
    """
    n = len(hops)
    ending: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {
        (1 << k, k): (0.0, (k,)) for k in range(n)
    }
    routes: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for members in range(1, 1 << n):
        inside = [k for k in range(n) if members >> k & 1]
        for last in inside if len(inside) > 1 else ():
            before = [ending[members & ~(1 << last), k] for k in inside if k != last]
            ending[members, last] = min(
                (cost + float(hops[order[-1], last]), (*order, last)) for cost, order in before
            )
        through = (ending[members, last] for last in inside)
        routes[members] = min((cost + float(ends[order[-1]]), order) for cost, order in through)
    return routes
