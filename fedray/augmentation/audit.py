"""What a run's companion and its clients had, looked at once the last round has ended."""

from typing import Any

from fedray.executors import Executor
from fedray.network.ledger import Ledger
from fedray.network.radio import Radio
from fedray.planning.round import schedule_round
from fedray.planning.shared import Shared
from fedray.runs.folder import RunFolder
from fedray.scenario.scenario import Scenario


def audited(
    scenario: Scenario,
    radio: Radio,
    known: Shared,
    executor: Executor,
    folder: RunFolder,
    ledger: Ledger,
) -> dict[str, Any]:
    """How good the data of the last round's clients and of the companion are, and how far each client's
    mix of labels is from the population's.

    Args:
        scenario: whose.
        radio: its network.
        known: what the server knows of its clients.
        executor: has the global model.
        folder: of the run.
        ledger: of all rounds.
    """
    planner = scenario.companion_planner()
    schedule = schedule_round(scenario, radio, scenario.training.rounds, known)
    task = planner.audited(ledger.pictures, known)
    clients = schedule.clients
    if not clients:  # none trained
        eligible = known.eligible(scenario)
        clients = [int(c) for c in eligible][: scenario.population.clients_per_round]
    audit = executor.audit(clients, task, folder.path / "samples" / "pictures.png")
    return {**audit, **planner.distances(known, task, folder.rows())}
