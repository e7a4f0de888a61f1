"""The actors that train clients, and what all actors share. Thin: all they do is in local_training.py."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import ray

from fedray.data import held_out, holdings
from fedray.executors import Job, ServerRestarted, TrainReport
from fedray.executors.versions import Aged
from fedray.planning.workload import Workload
from fedray.runs.fingerprint import of_data
from fedray.scenario.base import Refused
from fedray.steps import Pass


def _set_environment(job: Job) -> None:
    """What torch reads when it is first imported. A runtime_env would say the same, but start a process anew
    for it."""
    os.environ["OMP_NUM_THREADS"] = str(job.scenario.runtime.threads)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"


def this_device() -> Any:
    """The GPU Ray gave this actor. An actor without one still sees every GPU, so CUDA must not be asked."""
    import torch

    return torch.device("cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu")


class Actor(ABC):
    """What client, server and evaluator share: their work is made by the first call that needs it, not with
    the actor. So what goes wrong then is an answer, not a death, and an evaluator's imports do not hold up
    the first round."""

    def __init__(self, job: Job, site: str | None = None) -> None:
        self.job = job
        self.site = site

    @cached_property
    def work(self) -> Any:
        _set_environment(self.job)
        return self.make()

    @abstractmethod
    def make(self) -> Any: ...

    def pid(self) -> int:
        return os.getpid()


def or_failure(do: Callable[[], Any], arrived: Sequence[Any]) -> Any:
    """What fails in a split round is an answer too, and passed on in the place of what is waited for: so
    every call takes its turn, and the end of the client's turn raises it."""
    try:
        return next((a for a in arrived if isinstance(a, Exception)), None) or do()
    except Exception as e:
        return e


class Part(NamedTuple):
    """Whether these are the first and the last of a host's clients in a round: it may be asked for them part
    by part, so that a person hears of those that are done."""

    first: bool
    last: bool


class ClientHost(Actor):
    """An actor that runs the turns of its clients, one after another, with the model resident."""

    so_far: Any = None  # the sum of a round of which only some parts are done
    rank = 0  # among the hosts that reduce

    def make(self) -> Any:
        if self.job.scenario.topology.splits_model:
            from fedray.executors.split.client import SplitClients

            return SplitClients(self.job, this_device(), self.site)
        from fedray.executors.client_worker import ClientWorker

        return ClientWorker(self.job, this_device(), self.site)

    def ready(self) -> str:
        """The node it runs on, once it can work."""
        assert self.work is not None
        return ray.get_runtime_context().get_node_id()

    def survey(self) -> tuple[dict[int, int], list[Refused], dict[str, Any]]:
        """How many samples each client of this host's site holds, every image that cannot be read, and what
        the data are."""
        scenario = self.job.scenario
        place = (self.job.folder, self.site, self.job.dataset)
        samples, client_indices = holdings(scenario, *place)
        bad = list(samples.unreadable(client_indices))
        if scenario.held_out_share:
            bad += samples.unreadable(held_out(scenario, *place)[1])
        return (
            {client: len(part) for client, part in client_indices.items()},
            bad,
            {} if bad else of_data(samples, client_indices),
        )

    def initial(self) -> tuple[Any, Any, Any]:
        return self.work.initial()

    def go(self, round_number: int, step: Pass, then: Pass | None, *arrived: Any) -> Any:
        return or_failure(lambda: self.work.go(round_number, step, then, *arrived), arrived)

    def end(self, round_number: int, client: int, loss: Any) -> tuple[Any, list[TrainReport], Any]:
        if isinstance(loss, Exception):
            raise loss
        part, report, kept = self.work.end(round_number, client, loss)
        return part, [report], kept or {}

    def train(
        self, round_number: int, client: int, buffer: Any, state: Any
    ) -> tuple[Any, list[TrainReport], Any]:
        new, report, kept = self.work.train(round_number, client, buffer, state)
        return new, [report], kept or {}

    def validate_and_train(
        self, round_number: int, client: int, handed: Any, state: Any
    ) -> tuple[Any, list[TrainReport], Any]:
        new, report, kept = self.work.validate_and_train(round_number, client, handed, state)
        return new, [report], kept or {}

    def validate(
        self, round_number: int, client: int | None, handed: Any, reports: list[TrainReport], state: Any
    ) -> tuple[Any, list[TrainReport]]:
        buffer, report = self.work.validate(round_number, client, handed, reports[0], state)
        return buffer, [report]

    def add(self, base: Any, state: Any, weight: int, end: Any, *reports: list[TrainReport]) -> Any:
        return self.work.add(base, state, weight, end, [r for part in reports for r in part])

    def train_all(
        self,
        base: Any,
        server: Any,
        weight: int,
        round_number: int,
        clients: Sequence[int],
        part: Part,
        generated: Any,
        *states: Any,
        secure: Any = None,
        weights: Any = None,
        staleness: int | None = None,
        newest: Any = None,
        node_of: Any = None,
    ) -> tuple[Any, ...]:
        """The sum once all parts of a round are done, the reports, then the new states, each an object of its
        own.

        Args:
            base: the global buffer.
            server: its state, where updates are added to what it keeps in fp32.
            weight: of all clients of the round.
            round_number: from 1.
            clients: of this call.
            part: whether the call is the host's first and last in the round.
            generated: samples that join each client's own, or None.
            secure: the round's secure aggregation, or None.
            weights: of the round's clients, where these are its own.
            staleness: of `base`, where clients do not begin together.
            newest: the newest global buffer, where the mode asks for it.
            node_of: whose model each client's update is for; None: there is one model.
        """
        aged = None if staleness is None else Aged(staleness, newest)
        before = None if part.first else self.so_far
        kept = states or [None] * len(clients)
        total, reports, new = self.work.train_all(
            base,
            server,
            weight,
            round_number,
            clients,
            kept,
            before,
            generated,
            secure,
            weights,
            aged,
            node_of,
        )
        self.so_far = None if part.last else total
        return total if part.last else None, reports, *([state or {} for state in new] if states else ())

    def test_clients(
        self, round_number: int, buffer: Any, server: Any, own: Any, clients: Sequence[int], *states: Any
    ) -> Any:
        """Rows of tests of these clients.

        Args:
            round_number: after which; 0: of the base model.
            buffer: the global one.
            server: what the server keeps beside it, where that is evaluated.
            own: the buffer that the clients have themselves; None: the global one.
            clients: by number.
            states: what each one keeps.
        """
        from fedray.executors.client_tests import GlobalModel

        kept = dict(zip(clients, states, strict=True)) if states else {}
        owned = {} if own is None else dict.fromkeys(clients, own)
        return self.work.test_clients(GlobalModel(round_number, buffer, server, owned), clients, kept)

    def audit(self, buffer: Any, clients: Sequence[int]) -> Any:
        return [self.work.audit(client, buffer) for client in clients]

    def join(self, group: str, hosts: int, rank: int) -> None:
        from ray.util import collective

        self.rank = rank
        # Sums are float64 in the processor's memory, and hosts may share a GPU, which NCCL refuses.
        backend: Any = "gloo"
        collective.init_collective_group(hosts, rank, backend, group)

    def allreduce(self, group: str, weight: int, total: Any | None) -> tuple[Any | None, bool]:
        """The sum over all hosts, from the first of them, and that it is there; every host of the group has
        to ask for it."""
        from ray.util import collective

        whole, numbers = self.work.reduction(total, weight)
        try:
            collective.allreduce(numbers, group)
        except Exception as e:  # whatever a collective library says of a peer that is gone
            raise ServerRestarted(f"the hosts could not reduce: {e}") from None
        return None if self.rank else whole(numbers), True

    def workload(self) -> Workload:
        from fedray.planning.workload import measure

        return measure(self.job.scenario, self.job.folder, self.job.dataset)

    def export(self, buffer: Any, state: Any, folder: Path) -> None:
        self.work.export(buffer, state, folder)
