"""`topology`: who sends what to whom."""

from typing import Annotated, Literal

from pydantic import Field

from fedray.scenario.base import Count, Section


class Relay(Section):
    """Device-to-device relay (huang2023, Fig. 2c): each client passes the model on to the next."""

    kind: Literal["relay"]
    # best_sidelink: to the neighbour that is reached fastest. tour: the whole way is planned beforehand.
    order: Literal["random", "best_sidelink", "tour"] = "random"
    chains: Count = 1  # relays side by side, averaged at the round's end
    groups: Literal["random", "nearest"] = "random"  # who shares a chain: nearest, those of one part of the cell


class Parallel(Section):
    """Every client of a round trains from the same model at the same time (huang2023, Fig. 2a)."""

    kind: Literal["parallel"]
    # server: each client sends its update up, and the server adds them. allreduce: the round's clients add them in a ring
    # over sidelinks, 2 (n - 1) / n of the payload each, and one sends the result up.
    reduce: Literal["server", "allreduce"] = "server"


Topology = Annotated[Relay | Parallel, Field(discriminator="kind")]
