"""The relay of huang2023, Fig. 2(c) and Sec. IV, Steps 1 to 4: the buffer goes from device to device.

server -> client i -> client i' -> ... -> last client -> server
"""

from collections.abc import Callable, Collection, Sequence

import numpy as np

from fedray.randomness import SERVER_ID
from fedray.schedule import Schedule
from fedray.steps import Aggregate, Send, Step, Train, Validate
from fedray.topologies.topology import RoundContext, Sidelinks, Topology

# Whom `here` (none: the server) would hand the buffer to, of the clients left in S, the best first.
Preference = Callable[[int | None, Collection[int]], list[int]]
Order = Callable[[Sequence[int], np.random.Generator], Preference]
Rates = Callable[[int, Collection[int]], np.ndarray]  # bit/s over the sidelinks from one client to others


def relay(
    round_number: int,
    groups: Sequence[Sequence[int]],
    order: Order,
    rng: np.random.Generator,
    reaches: Callable[[int, int], bool] | None = None,
    validates: bool = False,
) -> Schedule:
    """One global round t over the clients of the round (the index set S), in groups.

    Each group is a chain. Chains run side by side, and the server averages what they return: one chain is the
    paper's relay, chains of one client are the parallel round. A hop that does not reach its receiver is
    charged, and the next neighbour is tried; where none is reached the chain ends.

    Args:
        round_number: t, counted from 1.
        groups: the clients of each chain.
        order: in which order a chain's clients come.
        rng: for what is drawn in an order.
        reaches: whether a hop from one client to another arrives; none: every hop does.
        validates: whether a client validates what another one hands it. Then the last accepted buffer travels
            beside the model, and what the last client made is validated by one of the chain that has trained,
            which sends it up; where it reaches none, it is sent up as it is.
    """
    steps: list[Step] = []
    unreached: list[int] = []
    for members in groups:
        chain = _Chain(order(members, rng), reaches, validates)
        unreached += sorted(chain.run(members))
        steps += chain.steps
    # The round ends: v_{t+1}. After T rounds, Step 4 merges it into the base weights.
    ups = (s.id for s in steps if isinstance(s, Send) and s.direction == "uplink")
    return Schedule(round_number, (*steps, Aggregate("aggregate", tuple(ups))), tuple(unreached))


class _Chain:
    """The steps of one chain.

    Args:
        prefers: whom a client hands the model to.
        reaches: whether a hop arrives; none: every hop does.
        validates: whether receivers validate.
    """

    def __init__(
        self, prefers: Preference, reaches: Callable[[int, int], bool] | None, validates: bool
    ) -> None:
        self.prefers = prefers
        self.reaches = reaches
        self.validates = validates
        self.steps: list[Step] = []

    def run(self, members: Sequence[int]) -> set[int]:
        """Writes the steps of a chain of these clients; those that it does not reach."""
        left = set(members)
        # Step 1: the server sends v_t to a client i of S.
        here: int | None
        here = holder = self.prefers(None, left)[0]
        self.steps.append(Send(f"down-{here}", SERVER_ID, here, "downlink"))
        after: tuple[str, ...] = (self.steps[-1].id,)
        while here is not None:
            holder = here
            # Step 2: client i trains, and leaves S.
            self.steps.append(Train(f"train-{here}", here, after))
            left.remove(here)
            # Step 3: while S is not empty, i passes v_{t,i} to the next client i' over the sidelink.
            here, after = self._hop(holder, left, (f"train-{here}",))
        if self.validates:
            validator, after = self._hop(holder, set(members) - left - {holder}, after)
            holder = holder if validator is None else validator
        self.steps.append(Send(f"up-{holder}", holder, SERVER_ID, "uplink", after))
        return left

    def _hop(
        self, sender: int, receivers: Collection[int], after: tuple[str, ...]
    ) -> tuple[int | None, tuple[str, ...]]:
        """Hands the model on to the first of these that is reached, if one is, who validates it where
        receivers do; and what the next step waits for where nobody is reached.

        Args:
            sender: that has the model.
            receivers: that it may go to.
            after: what the first hop waits for.
        """
        first = after[0]
        share = 2.0 if self.validates else 1.0
        for receiver in self.prefers(sender, receivers) if receivers else []:
            hop = Send(f"hop-{sender}-{receiver}", sender, receiver, "sidelink", after, share)
            self.steps.append(hop)
            if self.reaches is None or self.reaches(sender, receiver):
                if self.validates:
                    self.steps.append(Validate(f"validate-{sender}-{receiver}", receiver, (hop.id,)))
                return receiver, (self.steps[-1].id,)
            after = (first, hop.id)
        return None, after


def random_groups(clients: Sequence[int], chains: int, rng: np.random.Generator) -> list[list[int]]:
    """Clients in so many random groups, whose sizes differ by one at most."""
    assert 1 <= chains <= len(clients)
    return [[int(c) for c in members] for members in np.array_split(rng.permutation(list(clients)), chains)]


def random_order(clients: Sequence[int], rng: np.random.Generator) -> Preference:
    """Each next client is drawn at random from those left in S (Sec. IV, Step 1)."""
    return fixed_order([int(c) for c in rng.permutation(list(clients))])


def best_sidelink(rates_bps: Rates) -> Order:
    """The first client is drawn; each next one is the client left in S that is reached fastest. Equal rates
    go to the smaller number."""

    def order(clients: Sequence[int], rng: np.random.Generator) -> Preference:
        first = int(rng.choice(sorted(clients)))

        def prefers(here: int | None, left: Collection[int]) -> list[int]:
            if here is None:
                return [first]
            others = sorted(left)
            return [others[i] for i in np.argsort(-rates_bps(here, others), kind="stable")]

        return prefers

    return order


def two_opt_tour(rates_bps: Rates) -> Order:
    """The whole way is planned beforehand: from a first client that is drawn, by the nearest next one, then
    shortened by turning parts of it round as long as that helps (2-opt, Croes 1958). Nearness is the time a
    bit takes."""

    def order(clients: Sequence[int], rng: np.random.Generator) -> Preference:
        members = sorted(clients)
        first = members.index(int(rng.choice(members)))
        with np.errstate(divide="ignore"):
            bit_s = np.minimum(1 / np.array([rates_bps(c, members) for c in members]), 1e9)
        path = _shortened(_nearest_next(first, bit_s), bit_s)
        return fixed_order([members[i] for i in path])

    return order


def _nearest_next(first: int, cost: np.ndarray) -> np.ndarray:
    """The path from `first` that goes on to the nearest member left, of costs [from, to]."""
    path = np.array([first])
    left = np.delete(np.arange(len(cost)), first)
    while len(left):
        nearest = int(np.argmin(cost[path[-1], left]))
        path = np.append(path, left[nearest])
        left = np.delete(left, nearest)
    return path


def _shortened(path: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """The path with parts of it reversed as long as that makes it shorter; its first member stays."""
    improved = True
    while improved:
        improved = False
        for i in range(1, len(path) - 1):
            forth = cost[path[i:-1], path[i + 1 :]].cumsum()
            back = cost[path[i + 1 :], path[i:-1]].cumsum()
            after = np.append(cost[path[i], path[i + 2 :]] - cost[path[i + 1 : -1], path[i + 2 :]], 0.0)
            # what is saved by reversing i to j, for every j
            saved = forth - back + cost[path[i - 1], path[i]] - cost[path[i - 1], path[i + 1 :]] - after
            if saved.max(initial=0.0) > 1e-12 * cost[path[:-1], path[1:]].sum():
                j = i + 2 + int(np.argmax(saved))
                path[i:j] = path[i:j][::-1].copy()
                improved = True
    return path


def restrict_to_reachable(reaches: Callable[[int, Collection[int]], np.ndarray], order: Order) -> Order:
    """The same order, but clients out of range are not tried. `reaches` says which others a client can
    reach at all, bool."""

    def restricted(clients: Sequence[int], rng: np.random.Generator) -> Preference:
        prefers = order(clients, rng)

        def reachable(here: int | None, left: Collection[int]) -> list[int]:
            others = prefers(here, left)
            return others if here is None else [others[i] for i in np.flatnonzero(reaches(here, others))]

        return reachable

    return restricted


def placed(order: Order, first: Collection[int], last: Collection[int]) -> Order:
    """The same order, but for some clients that come first, or last."""

    def order_by_place(clients: Sequence[int], rng: np.random.Generator) -> Preference:
        prefers = order(clients, rng)
        return lambda here, left: sorted(prefers(here, left), key=lambda c: (c in last) - (c in first))

    return order_by_place if first or last else order


def fixed_order(path: Sequence[int]) -> Preference:
    return lambda here, left: [c for c in path if c in left]


def groups_of(kind: str, n: int, context: RoundContext, rng: np.random.Generator) -> list[list[int]]:
    """A round's clients in groups.

    Args:
        kind: `topology.groups`.
        n: how many, at most.
        context: of the round, which has clients.
        rng: of the round.
    """
    n = min(n, len(context.clients))
    if kind == "nearest":
        assert context.sidelinks is not None
        return context.sidelinks.nearest_groups(context.clients, n)
    return random_groups(context.clients, n, rng)


class RelayTopology(Topology):
    """Each client passes the model on to the next, in one chain or several."""

    def schedule(self, context: RoundContext) -> Schedule:
        rng = context.rng()
        if not context.clients:
            return relay(context.round_number, [], random_order, rng)
        sidelinks = context.sidelinks
        assert sidelinks is not None
        groups = groups_of(self.section.groups, self.section.chains, context, rng)
        order = placed(self._order(context, sidelinks), context.first, context.last)
        validates = self.section.relay_defence is not None
        if sidelinks.reaches_all:
            return relay(context.round_number, groups, order, rng, validates=validates)
        for members in groups:
            for k in members:
                others = [c for c in members if c != k]
                if others and not sidelinks.in_range(k, others).any():
                    raise sidelinks.refuse_alone(k, others)
        at_once = sum(len(members) > 1 for members in groups)  # hops, as the clock counts them
        share = 1 / max(1, at_once)

        def arrives(sender: int, receiver: int) -> bool:
            return sidelinks.arrives(sender, receiver, share, buffers=2 if validates else 1)

        in_range = restrict_to_reachable(sidelinks.in_range, order)
        return relay(context.round_number, groups, in_range, rng, arrives, validates)

    def _order(self, context: RoundContext, sidelinks: Sidelinks) -> Order:
        if context.order:
            return lambda clients, rng: fixed_order(context.order)
        if self.section.order == "best_sidelink":
            return best_sidelink(sidelinks.rates_bps)
        if self.section.order == "tour":
            return two_opt_tour(sidelinks.rates_bps)
        return random_order
