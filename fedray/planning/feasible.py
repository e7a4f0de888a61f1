"""What a network can do at all, before anything trains."""

import math

import numpy as np

from fedray.network.clock import time_round
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.asked import NOTHING, select_clients
from fedray.planning.bidding import refuse_without_winners
from fedray.planning.round import write_round
from fedray.planning.shared import Shared
from fedray.planning.workload import Workload
from fedray.scenario import Refused, Scenario
from fedray.steps import Aggregate

LOOKED_AT = 5  # rounds, before a deadline is said to be met by nobody


class TooLittle(Refused):
    """Memory or time, of which at least so much would do."""

    def __init__(self, key: str, got: object, expected: str, least: float) -> None:
        super().__init__(key, got, expected)
        self.least = least


def feasible(scenario: Scenario, radio: Radio, workload: Workload, shared: Shared) -> None:
    """What a network cannot do, whoever is drawn.

    Args:
        scenario: whose.
        radio: its network.
        workload: what a round takes.
        shared: what the server knows of its clients.

    Raises:
        Refused: for a model that does not fit a device's memory, or a deadline that nobody can meet.
    """
    needed = workload.memory_bytes(scenario.training.precision, scenario.runtime.base_precision)
    for processor in (*radio.devices.kinds, radio.server):
        side = "server" if processor is radio.server else "client"
        if processor.memory_bytes is not None and needed[side] > processor.memory_bytes:
            key = f"network.{'server' if side == 'server' else 'device'}.memory_bytes"
            got = f"{processor.memory_bytes:.3g} for a larger model"
            expected = f"at least {needed[side]:.3g}, activations not counted"
            raise TooLittle(key, got, expected, needed[side])
    if scenario.secure_aggregation is not None:
        weights = sorted(map(scenario.aggregation.weight, shared.samples), reverse=True)
        scenario.secure_aggregation.refuse_weight(sum(weights[: scenario.population.clients_selected]))
    if scenario.incentive is not None:
        work = workload.of(scenario, shared.samples)
        refuse_without_winners(scenario, radio, work, shared.eligible(scenario), shared.samples)
    if (deadline := scenario.network.deadline_s) is not None:
        _check_deadline(scenario, radio, workload.of(scenario, shared.samples), shared, deadline)


def _check_deadline(scenario: Scenario, radio: Radio, work: Work, shared: Shared, deadline_s: float) -> None:
    """Refuses a deadline before which not even the first of the fastest clients finishes, in none of the
    first LOOKED_AT rounds, each of which would begin when the deadline of the last is over."""
    fastest = math.inf
    for t in range(1, min(LOOKED_AT, scenario.training.rounds) + 1):
        clients = shared.eligible(scenario)
        when = RoundStart(t, radio.devices.next_s((t - 1) * deadline_s, clients))
        if not scenario.population.fills_rounds:  # which asks as few as it takes
            selected = select_clients(scenario, radio, when, shared, work)
        else:
            order = np.argsort(
                radio.finish_times_s(when, work, clients)(
                    n := min(scenario.population.clients_selected, len(clients))
                ),
                kind="stable",
            )
            selected = sorted(clients[order[:n]].tolist())
        schedule = write_round(scenario, radio, when, selected, shared, None, NOTHING)
        # as if there were none
        timed = time_round(schedule, work, radio, when.time_s, {step.id: "done" for step in schedule})
        waits = [step for step in schedule if isinstance(step, Aggregate) and step.deadline_s is not None]
        last = {i for step in waits for i in step.after if i not in step.beside}
        fastest = min([fastest, *(event.t1_s - when.time_s for event in timed if event.id in last)])
        if fastest <= deadline_s:
            return
    expected = (
        f"at least {fastest:.4g}, when the fastest client finishes"
        if math.isfinite(fastest)
        else "a client that is reached at all"
    )
    raise TooLittle("network.deadline_s", deadline_s, expected, fastest)
