"""The parallel round with secure aggregation (Bonawitz et al. 2017, Fig. 2): four exchanges a client.

server -> client: the model;  client -> server: public keys;       server -> client: its neighbours' keys
client -> server: shares;     server -> client: shares for it;     the client trains
client -> server: masked update;  server -> client: who survived;  client -> server: shares for unmasking
"""

from fedray.randomness import SERVER_ID
from fedray.schedule import Schedule
from fedray.secure.sizes import Message, message_bytes
from fedray.steps import Aggregate, Direction, Quorum, Send, Step, Train
from fedray.topologies.topology import RoundContext, Sharing

COLLECT = "collect"  # the server step that adds masked updates, until the deadline


def secure_parallel(context: RoundContext, sharing: Sharing) -> Schedule:
    """One round. The first server step adds masked updates, as many as come in time; the second one takes off
    the masks. Both fail below the threshold."""
    clients = context.clients
    near = sharing.neighbours

    def small(message: Message, client: int, after: tuple[str, ...], given: str | None = None) -> Send:
        up = message in ("keys", "shares", "unmask")
        ends = (client, SERVER_ID) if up else (SERVER_ID, client)
        nbytes = message_bytes(message, len(near[client]))
        direction: Direction = "uplink" if up else "downlink"
        name = f"{message.replace('_', '-')}-{client}"
        return Send(name, *ends, direction, after, bytes=nbytes, message=message, given=given)

    steps: list[Step] = [Send(f"down-{k}", SERVER_ID, k, "downlink") for k in clients]
    steps += [small("keys", k, (f"down-{k}",)) for k in clients]
    for before, after in (("keys", "peer_keys"), ("shares", "peer_shares")):
        if before == "shares":
            steps += [small("shares", k, (f"peer-keys-{k}",)) for k in clients]
        steps += [
            small(after, k, tuple(f"{before}-{other}" for other in (k, *near[k])))  # type: ignore[arg-type]
            for k in clients
        ]
    steps += [Train(f"train-{k}", k, (f"down-{k}", f"peer-shares-{k}")) for k in clients]
    steps += [Send(f"up-{k}", k, SERVER_ID, "uplink", (f"train-{k}",)) for k in clients]
    ups = tuple(f"up-{k}" for k in clients)
    quorums = _quorums("up", sharing)
    steps.append(Aggregate(COLLECT, ups, context.deadline_s, context.min_updates, quorums))
    steps += [small("survivors", k, (COLLECT,), given=f"up-{k}") for k in clients]
    steps += [small("unmask", k, (f"survivors-{k}",)) for k in clients]
    answers = tuple(f"unmask-{k}" for k in clients)
    steps.append(Aggregate("aggregate", (COLLECT, *answers), quorums=_quorums("unmask", sharing)))
    return Schedule(context.round_number, tuple(steps))


def _quorums(step: str, sharing: Sharing) -> tuple[Quorum, ...]:
    """Of those that hold shares of each client that has shared secrets, the threshold."""
    if all(len(others) == len(sharing.neighbours) - 1 for others in sharing.neighbours.values()):
        return (Quorum(tuple(f"{step}-{k}" for k in sharing.neighbours), sharing.threshold),)
    return tuple(
        Quorum(tuple(f"{step}-{holder}" for holder in (k, *others)), sharing.threshold, f"shares-{k}")
        for k, others in sharing.neighbours.items()
    )
