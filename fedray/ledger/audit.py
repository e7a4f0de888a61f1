"""Checks what lies beside a ledger's lines: checkpoints, kept updates, the result."""

import re
from pathlib import Path
from typing import Any

from fedray.ledger import records
from fedray.ledger.chain import Audit, chain
from fedray.ledger.keys import SERVER
from fedray.ledger.records import Seal, SignedHead, digest, line, signed_bytes
from fedray.runs import reader

CHECKPOINT = re.compile(r"round-\d{4,9}")


def audit(path: Path, run_id: str, keeps_updates: bool) -> Audit:
    """Everything but the adding up of kept updates.

    Args:
        path: the run folder.
        run_id: what its scenario says that the run is.
        keeps_updates: whether its ledger does.

    Raises:
        ScenarioError: for a folder without a ledger, or with links out of it.
    """
    reader.refuse_links_within(path, path / "checkpoints")
    result = chain(path, run_id)
    if not result.problems:
        _check_checkpoints(result)
        if keeps_updates:
            _check_kept(result)
        _check_result(result)
    return result


def _check_checkpoints(result: Audit) -> None:
    """That every file of a checkpoint is as the server sealed it, and its seal names the head of its
    round."""
    heads = {f"round-{e.head.round:04d}": e for e in result.entries if isinstance(e, SignedHead)}
    for folder in sorted((result.path / "checkpoints").glob("round-*")):
        if not CHECKPOINT.fullmatch(folder.name) or not folder.is_dir():
            continue
        place = f"checkpoints/{folder.name}/{records.SEAL}"
        seal = _seal(folder / records.SEAL)
        if seal is None or not result.keys.verifies(SERVER, seal.signature, signed_bytes("seal", seal.seal)):
            result.add(place, "no seal, or one that was changed", "the server's over the checkpoint's files")
            continue
        head = heads.get(folder.name)
        if head is None or seal.seal.head != digest(line(head)):
            result.add(place, "a seal with another head", f"the head of {folder.name} in {records.LINES}")
        _check_sealed(result, folder, seal.seal.files)
        result.seals += 1


def _seal(file: Path) -> Seal | None:
    """A checkpoint's seal; none where it is not to the byte as a run writes it."""
    raw = file.read_bytes() if file.is_file() else b""
    return records.parsed(raw[:-1], Seal) if raw.endswith(b"\n") else None


def _check_sealed(result: Audit, folder: Path, sealed: dict[str, str]) -> None:
    """That a checkpoint's files are those that its seal names, and as it names them."""
    files = {entry.name: entry for entry in folder.iterdir() if entry.name != records.SEAL}
    for name in sorted(files.keys() | sealed.keys()):
        place = f"checkpoints/{folder.name}/{name}"
        if name not in sealed:
            result.add(place, "a file that was added", f"those that {records.SEAL} names")
        elif name not in files or not files[name].is_file():
            result.add(place, "no file", f"one of sha256 {sealed[name][:12]}...")
        elif digest(files[name].read_bytes()) != sealed[name]:
            result.add(place, "a file that was changed", f"one of sha256 {sealed[name][:12]}...")


def _check_kept(result: Audit) -> None:
    """That every update that is kept is the one of its leaf."""
    sent = {records.kept_file(leaf.round, leaf.client): leaf for leaf in result.leaves if leaf.update}
    for file in sorted((result.path / records.KEPT).rglob("*")):
        name = file.relative_to(result.path).as_posix()
        if file.is_file() and name not in sent:
            result.add(name, "a file without a leaf", "the updates of the leaves alone")
    for name, leaf in sent.items():
        update = kept_update(result.path, name)
        if update is None or digest(update) != leaf.update:
            got = "no update" if not (result.path / name).is_file() else "an update that was changed"
            expected = f"that of client {leaf.client} in round {leaf.round}, sha256 {leaf.update}"
            result.add(name, got, expected)
        else:
            result.kept += 1


def kept_update(path: Path, name: str) -> bytes | None:
    """The bytes of an update that is kept; none where its file is not to the byte as a run writes it."""
    from safetensors.numpy import load, save

    try:
        raw = reader.inside(path, path / name).read_bytes()
        update = load(raw)["update"]
    except Exception:  # whatever a library says of a damaged file
        return None
    return update.tobytes() if save({"update": update}) == raw else None


def _check_result(result: Audit) -> None:
    """That result.json names the weights of the last head."""
    document: dict[str, Any] | None = reader.document(result.path, "result.json")
    if document is None or document.get("status") != "done":
        return
    last = result.heads[-1]
    if (document.get("rounds"), document.get("weights_sha256")) != (last.round, last.weights):
        got = f"round {document.get('rounds')} with weights {str(document.get('weights_sha256'))[:12]}..."
        result.add("result.json", got, f"round {last.round} with {last.weights[:12]}..., as the head says")
