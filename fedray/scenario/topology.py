"""`topology`: who sends what to whom."""

from typing import Literal

from fedray.scenario.base import Count, Section


class Relay(Section):
    """Device-to-device relay (huang2023, Fig. 2c): each client passes the model on to the next."""

    kind: Literal["relay"]
    order: Literal["random", "best_sidelink"] = "random"
    chains: Count = 1  # relays side by side, averaged at the round's end


Topology = Relay
