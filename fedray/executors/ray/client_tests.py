"""Tests on clients' own distributions by the hosts that train them, between their local updates."""

from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from fedray.executors import StepFailed
from fedray.executors.ray.driver import Driver

STAGE = "testing clients' models"


class SubmittedTests:
    """Tests of a round, under way; those of a host that is lost are done again by the others.

    Args:
        driver: whose hosts test.
        round_number: after which; 0: of the base model.
    """

    def __init__(self, driver: Driver, round_number: int) -> None:
        self.driver = driver
        self.round_number = round_number
        base = not round_number
        self.buffer = driver.initial if base else driver.buffer
        server = driver.initial_state if base else driver.state
        # whose master or moving average is what is evaluated
        self.server = server if driver.job.scenario.data.holdout is not None else {}
        self.states = {} if base else dict(driver.client_states)
        scenario = driver.job.scenario
        apart = scenario.topology.keeps_client_models and not base
        self.own = driver.versions.own(scenario.tested_clients) if apart else {}
        self.rows: list[dict[str, Any]] = []
        self.lost: list[int] = []
        self.clients_of: dict[Any, list[int]] = {}  # by the reference to their rows
        self._submit(driver.job.scenario.tested_clients)

    def done(self) -> bool:
        waiting = list(self.clients_of)
        return not waiting or len(ray.wait(waiting, num_returns=len(waiting), timeout=0)[0]) == len(waiting)

    def result(self) -> list[dict[str, Any]]:
        """A row a client, by their numbers.

        Raises:
            StepFailed: for what goes wrong in a test, and where hosts are lost again and again.
        """
        retries = self.driver.job.scenario.runtime.failures.retries
        while (error := self._collect()) is not None:
            if not retries:
                raise StepFailed.of(error, self.round_number, STAGE, None, str(error)) from None
            retries -= 1
            self.driver.heal(all_anew=False)
            self._submit(self.lost)
        return sorted(self.rows, key=lambda row: row["client"])

    def _submit(self, clients: list[int]) -> None:
        driver = self.driver
        keeps = driver.job.scenario.keeps_client_state
        for i, share in driver.share_out(clients, driver.shared.samples) if clients else []:
            call = driver.hosts[i].actor.test_clients
            for some in [[client] for client in share] if self.own else [share]:
                states = [self.states.get(client) for client in some] if keeps else []
                model = self.buffer, self.server, self.own.get(some[0])
                self.clients_of[call.remote(self.round_number, *model, some, *states)] = some

    def _collect(self) -> RayError | None:
        """Takes the rows that come; what lost a host, if something did, whose clients are then `lost`."""
        self.lost = []
        error: RayError | None = None
        for reference, clients in self.clients_of.items():
            try:
                self.rows += ray.get(reference)
            except RayTaskError as e:
                if isinstance(e.cause, StepFailed):
                    raise e.cause from None
                raise StepFailed.of(e, self.round_number, STAGE, None, str(e)) from None
            except RayError as e:
                self.lost += clients
                error = e
        self.clients_of = {}
        return error
