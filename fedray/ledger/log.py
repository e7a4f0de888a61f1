"""Writes a run's ledger: the leaves of each round as they came, the head that the server signs over them, and
a seal over each checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedray.files import naming, write_synced
from fedray.ledger import records, tree
from fedray.ledger.consensus import agree, go_back
from fedray.ledger.keys import SERVER, KeyRing
from fedray.ledger.records import Head, Seal, SealedFiles, SignedHead, digest, line, signed_bytes
from fedray.scenario import ScenarioError
from fedray.scenario.scenario import Scenario


@dataclass(frozen=True)
class GlobalModel:
    """The global model after a round, as its head has it.

    Args:
        buffer: sha256 of the global buffer.
        weights: `weights_sha256` of a checkpoint of it.
        clients: that can train at all.
    """

    buffer: str
    weights: str
    clients: int


class SignedLedger:
    """The ledger in a run folder, as the server goes on with it.

    Args:
        run: the run folder.
        scenario: whose.
        folder: where its relative paths start.
    """

    def __init__(self, run: Path, scenario: Scenario, folder: Path) -> None:
        self.path = run
        self.run = records.run_id(scenario)
        self.keys = KeyRing(scenario, folder)
        self.consensus = scenario.ledger.consensus if scenario.ledger else None
        self.hashes: list[bytes] = []  # of the tree's leaves
        self.head: bytes | None = None  # the last one, as a line
        self.keys_sha256 = ""

    def begin(self, model: GlobalModel) -> None:
        """A new run's: the public keys, and the head of round 0, of the model before anything has trained."""
        public = self.keys.public_file()
        write_synced(self.path / records.KEYS, public)
        self.keys_sha256 = digest(public)
        shutil.rmtree(self.path / records.KEPT, ignore_errors=True)
        write_synced(self.path / records.LINES, b"")
        go_back(self.path, 0)
        self.add_round(0, {}, {}, model)

    def add_round(
        self, number: int, leaves: Mapping[int, bytes], updates: Mapping[int, bytes], model: GlobalModel
    ) -> None:
        """Writes a round's leaves, the updates that are kept, and the head over all leaves so far.

        Args:
            number: of the round.
            leaves: by client, as signed lines, in the round's order.
            updates: by client, as files.
            model: what came of the round.
        """
        for client, data in updates.items():
            file = self.path / records.kept_file(number, client)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_synced(file, data)
        self.hashes += map(tree.leaf_hash, leaves.values())
        head = Head(
            run=self.run,
            round=number,
            size=len(self.hashes),
            root=tree.root(self.hashes).hex(),
            previous=digest(self.head) if self.head is not None else None,
            keys=self.keys_sha256,
            buffer=model.buffer,
            weights=model.weights,
            clients=model.clients,
        )
        signature = self.keys.sign(SERVER, signed_bytes("head", head))
        self.head = line(SignedHead(head=head, signature=signature))
        file = self.path / records.LINES
        with naming(file), file.open("ab") as f:
            f.writelines(entry + b"\n" for entry in (*leaves.values(), self.head))
        if self.consensus is not None and number:  # what stands before the first head, that head names
            agree(self.path, self.consensus, self.keys, number, digest(self.head))

    def seal(self, checkpoint: Path) -> None:
        """Signs the files of a checkpoint that is being written, with the head after its round."""
        assert self.head is not None
        files = {file.name: digest(file.read_bytes()) for file in sorted(checkpoint.iterdir())}
        sealed = SealedFiles(head=digest(self.head), files=files)
        signature = self.keys.sign(SERVER, signed_bytes("seal", sealed))
        write_synced(checkpoint / records.SEAL, line(Seal(seal=sealed, signature=signature)) + b"\n")

    def go_back(self, done: int, entries: Sequence[records.Record]) -> None:
        """Goes on from the signed head of a round; what was written after it is gone.

        Args:
            done: the round.
            entries: leaves and heads of the file, verified, up to that head or further.

        Raises:
            ScenarioError: where that head is not there.
        """
        heads = (
            i for i, entry in enumerate(entries) if isinstance(entry, SignedHead) and entry.head.round == done
        )
        end = next(heads, None)
        if end is None:
            got = f"got no head of round {done}, expected one to go on from"
            raise ScenarioError([f"{self.path / records.LINES}: {got}"])
        kept = [line(entry) for entry in entries[: end + 1]]
        self.head = kept[-1]
        leaves = (line(entry) for entry in entries[:end] if isinstance(entry, records.SignedLeaf))
        self.hashes = [tree.leaf_hash(leaf) for leaf in leaves]
        self.keys_sha256 = digest((self.path / records.KEYS).read_bytes())
        write_synced(self.path / records.LINES, b"".join(entry + b"\n" for entry in kept))
        go_back(self.path, done)
        for folder in kept_rounds(self.path):
            if int(folder.name.removeprefix("round-")) > done:
                shutil.rmtree(folder)


def kept_rounds(run: Path) -> Iterator[Path]:
    """The folders of the updates that a run folder keeps, a round each."""
    folders: Iterable[Path] = (run / records.KEPT).glob("round-*")
    return (f for f in sorted(folders) if f.is_dir() and f.name.removeprefix("round-").isdecimal())
