"""`aggregation`: how updates are combined."""

from typing import Literal

from fedray.scenario.base import Section


class FedAvg(Section):
    """The mean of the updates, weighted by samples (McMahan et al. 2017, Algorithm 1)."""

    kind: Literal["fedavg"] = "fedavg"


Aggregation = FedAvg
