"""A round without clients: the server trains on samples that lie there."""

from fedray.schedule import Schedule
from fedray.steps import Aggregate, Train
from fedray.topologies.topology import RoundContext, Topology


class CentralTopology(Topology):
    """The server trains on all samples, as one client would."""

    def schedule(self, context: RoundContext) -> Schedule:
        trains = tuple(Train(f"train-{k}", k, (), at_server=True) for k in context.clients)
        after = tuple(step.id for step in trains)
        return Schedule(context.round_number, (*trains, Aggregate("aggregate", after)))
