"""A topology of one's own: the model goes round a ring of clients.

server -> client k -> client k + 1 -> ... -> client k - 1 -> server
"""

import numpy as np
from pydantic import Field

import fedray


class Ring(fedray.Topology):
    """The clients of a round stand in a circle in the order of their numbers. Each trains the model and hands
    it to the next; the last one sends it to the server."""

    class Section(fedray.Topology.Section):
        shift: int = Field(
            default=1, description="How many places further round each round begins than the one before."
        )
        hands_model_on = True  # what travels between clients is the model, not an update

    def schedule(self, context: fedray.RoundContext) -> fedray.Schedule:
        first = (context.round_number - 1) * self.section.shift
        clients = np.roll(context.clients, -first).tolist()
        steps = []
        sender, direction, after = fedray.SERVER_ID, "downlink", ()
        for client in clients:
            send = fedray.Send(f"send-{client}", sender, client, direction, after)
            train = fedray.Train(f"train-{client}", client, after=(send.id,))
            steps += [send, train]
            sender, direction, after = client, "sidelink", (train.id,)
        if clients:
            steps.append(fedray.Send("up", sender, fedray.SERVER_ID, "uplink", after))
        steps.append(fedray.Aggregate("aggregate", after=("up",) if clients else ()))
        return fedray.Schedule(context.round_number, tuple(steps))
