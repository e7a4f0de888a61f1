"""What those that carry a round out need to know of its secure aggregation."""

from fedray.scenario.scenario import Scenario
from fedray.schedule import Schedule
from fedray.secure.masks import grid_of
from fedray.secure.round import SecureRound
from fedray.steps import Send


def secure_round(scenario: Scenario, schedule: Schedule) -> SecureRound:
    """Of a schedule that holds what will be done: from whom each client got shares, and who answers at the
    end; of a scenario with secure aggregation."""
    section = scenario.secure_aggregation
    assert section is not None
    sender = {step.id: step.sender for step in schedule if isinstance(step, Send)}
    neighbours = {}
    answering = []
    for step in schedule:
        if isinstance(step, Send) and step.message == "peer_shares":
            others = {sender[i] for i in step.after} - {step.receiver}
            neighbours[step.receiver] = tuple(sorted(others))
        if isinstance(step, Send) and step.message == "unmask":
            answering.append(step.sender)
    norm = section.clip_norm(scenario)
    narrow = section.bits != 64 and norm is not None
    return SecureRound(
        seed=scenario.seed,
        round_number=schedule.round,
        threshold=section.least(scenario.population.clients_selected),
        bits=section.bits,
        grid=grid_of(norm, section.value_bits) if narrow and norm is not None else None,
        value_bits=section.value_bits,
        neighbours=neighbours,
        answering=tuple(answering),
    )
