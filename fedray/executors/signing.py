"""What a client signs of a local update, where it trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from fedray.executors import Job, TrainReport
from fedray.executors.model import Model
from fedray.ledger.records import Leaf, SignedLeaf, digest, line, run_id, signed_bytes
from fedray.randomness import SERVER
from fedray.transport.hooks import as_bytes


def update_signer(job: Job, model: Model) -> UpdateSigner | None:
    """Of a scenario with a ledger."""
    return None if job.scenario.ledger is None else UpdateSigner(job, model)


class UpdateSigner:
    """Adds a signed leaf to the reports of a worker's clients; and what they sent, where that is kept.

    Args:
        job: the run's.
        model: the worker's.
    """

    def __init__(self, job: Job, model: Model) -> None:
        from fedray.ledger.keys import KeyRing  # only scenarios with a ledger need cryptography

        assert job.scenario.ledger is not None
        self.run = run_id(job.scenario)
        self.keys = KeyRing(job.scenario, job.folder)
        self.keeps = job.scenario.ledger.keep == "updates"
        self.weight = job.scenario.aggregation.weight
        self.model = model
        self.base = ""  # the sha256 of the buffer that the next clients start from

    def receive(self, buffer: np.ndarray) -> None:
        """The buffer that the clients which follow have received."""
        self.base = digest(np.ascontiguousarray(buffer).data)

    def update(self, report: TrainReport, change: Tensor) -> TrainReport:
        """A client's report with its leaf: its difference [sent] fp32 as it is added up at the server."""
        part = self.model.tuning.client_part(self.model.flat.layout, report.client)
        numbers = len(change) if part is None else int(part.sum())
        nbytes = self.model.hooks.encoded_bytes(numbers)
        return self._signed(report, "update", as_bytes(change), nbytes)

    def model_sent(self, report: TrainReport, buffer: np.ndarray) -> TrainReport:
        """A client's report with its leaf: the buffer that it hands on in a relay."""
        return self._signed(report, "model", buffer, buffer.nbytes)

    def failed(self, report: TrainReport) -> TrainReport:
        """The report with its leaf of a client that could not train and sends nothing; the server's own, of a
        model that it trains itself, as it is."""
        if report.client == SERVER:
            return report
        return self._signed(report, "update", None, 0)

    def _signed(self, report: TrainReport, sends: str, sent: np.ndarray | None, nbytes: int) -> TrainReport:
        """The report with its leaf.

        Args:
            report: of the client.
            sends: see Leaf.
            sent: uint8; None: nothing.
            nbytes: that it was on the air.
        """
        from fedray.ledger.keys import client_name

        leaf = Leaf(
            run=self.run,
            round=report.round,
            client=report.client,
            base=self.base,
            sends=sends,  # type: ignore[arg-type]
            update=None if sent is None else digest(np.ascontiguousarray(sent).data),
            weight=self.weight(report.samples),
            bytes=nbytes,
            outcome="done" if sent is not None else "failed",
        )
        signature = self.keys.sign(client_name(report.client), signed_bytes("leaf", leaf))
        signed = line(SignedLeaf(leaf=leaf, signature=signature))
        return replace(report, leaf=signed, update=self._file(sent))

    def _file(self, sent: np.ndarray | None) -> bytes | None:
        """What was sent as a safetensors file, where updates are kept."""
        from safetensors.numpy import save

        return save({"update": sent}) if self.keeps and sent is not None else None
