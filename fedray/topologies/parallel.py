"""The parallel round of huang2023, Fig. 2(a): every client trains from the same model at the same time.

server -> each client -> server                      (reduce: server)
server -> each client <-> its neighbours -> server   (reduce: allreduce)
"""

from collections.abc import Sequence

from fedray.schedule import SERVER, Schedule, Send, Server, Step, Train, client_node


def parallel(
    round: int,
    clients: Sequence[int],
    allreduce: bool,
    deadline_s: float | None = None,
    enough: int | None = None,
) -> Schedule:
    """One global round t over the clients of the round; the server waits for all, until the deadline, or for
    `enough`.

    With `allreduce` they add their updates in a ring over sidelinks (Patarasuk and Yuan 2009): n - 1 messages
    to reduce and n - 1 to gather, each 1 / n of the buffer; then one of them sends the server the sum.
    """
    steps: list[Step] = []
    for k in clients:
        steps.append(Send(f"down-{k}", SERVER, client_node(k), "downlink"))
        steps.append(Train(f"train-{k}", k, after=(steps[-1].id,)))
    n, trained = len(clients), tuple(step.id for step in steps[1::2])
    if not allreduce or n < 2:
        ups = [
            Send(f"up-{k}", client_node(k), SERVER, "uplink", (train,))
            for k, train in zip(clients, trained, strict=True)
        ]
        return Schedule(
            round, (*steps, *ups, Server("aggregate", tuple(up.id for up in ups), deadline_s, enough))
        )
    for k, next_ in zip(clients, [*clients[1:], clients[0]], strict=True):
        steps.append(
            Send(
                f"ring-{k}-{next_}",
                client_node(k),
                client_node(next_),
                "sidelink",
                trained,
                2 * (n - 1) / n,
                2 * (n - 1),
            )
        )
    steps.append(
        Send(f"up-{clients[0]}", client_node(clients[0]), SERVER, "uplink", tuple(s.id for s in steps[-n:]))
    )
    return Schedule(round, (*steps, Server("aggregate", (f"up-{clients[0]}",))))
