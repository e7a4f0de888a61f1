"""The parallel round of huang2023, Fig. 2(a): every client trains from the same model at the same time.

server -> each client -> server                      (reduce: server)
server -> each client <-> its neighbours -> server   (reduce: allreduce)
"""

from collections.abc import Sequence

from fedray.randomness import SERVER_ID
from fedray.schedule import Schedule
from fedray.steps import Aggregate, Send, Step, Train
from fedray.topologies.secure import secure_parallel
from fedray.topologies.topology import RoundContext, Topology


def parallel(
    round_number: int,
    clients: Sequence[int],
    allreduce: bool,
    deadline_s: float | None = None,
    min_updates: int | None = None,
) -> Schedule:
    """One global round t over the clients of the round.

    With `allreduce` they add their updates in a ring over sidelinks (Patarasuk and Yuan 2009): n - 1 messages
    to reduce and n - 1 to gather, each 1 / n of the buffer; then one of them sends the server the sum.

    Args:
        round_number: t, counted from 1.
        clients: that train, in the order in which the steps are written down.
        allreduce: whether clients reduce among themselves, instead of the server.
        deadline_s: until when the server waits, in seconds since the round's start; none: for all.
        min_updates: with how many updates the server goes on; none: with all.
    """
    steps: list[Step] = []
    for k in clients:
        steps.append(Send(f"down-{k}", SERVER_ID, k, "downlink"))
        steps.append(Train(f"train-{k}", k, after=(steps[-1].id,)))
    n = len(clients)
    trained = tuple(step.id for step in steps[1::2])
    if not allreduce or n < 2:
        uploads = [
            Send(f"up-{k}", k, SERVER_ID, "uplink", (train,))
            for k, train in zip(clients, trained, strict=True)
        ]
        aggregate = Aggregate("aggregate", tuple(upload.id for upload in uploads), deadline_s, min_updates)
        return Schedule(round_number, (*steps, *uploads, aggregate))
    share = 2 * (n - 1) / n
    for k, next_ in zip(clients, [*clients[1:], clients[0]], strict=True):
        steps.append(Send(f"ring-{k}-{next_}", k, next_, "sidelink", trained, share, messages=2 * (n - 1)))
    first = clients[0]
    ring = tuple(step.id for step in steps[-n:])
    steps.append(Send(f"up-{first}", first, SERVER_ID, "uplink", ring))
    return Schedule(round_number, (*steps, Aggregate("aggregate", (f"up-{first}",))))


class ParallelTopology(Topology):
    """Every client trains from the same model at the same time."""

    def schedule(self, context: RoundContext) -> Schedule:
        if context.sharing is not None:
            return secure_parallel(context, context.sharing)
        return parallel(
            context.round_number,
            context.clients,
            self.section.reduces_among_clients,
            context.deadline_s,
            context.min_updates,
        )
