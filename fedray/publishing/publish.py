"""Publishes a finished run, or writes what would be published."""

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedray.errors import printable
from fedray.publishing.facts import facts
from fedray.publishing.hub import refuse_name, upload
from fedray.publishing.package import package
from fedray.scenario import ScenarioError

LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,60}")


def publish(
    path: Path, repo: str, dry_run: Path | None = None, license_name: str = "unknown", private: bool = False
) -> dict[str, Any]:
    """Publishes the model of a finished run with its card: weights, settings and metrics, and nothing of the
    clients' data.

    Args:
        path: the run folder.
        repo: owner/name on the hub.
        dry_run: a new or an empty folder, into which everything is written instead; None: it is uploaded.
        license_name: of the weights, as the hub calls it: `apache-2.0`, `openrail`, `other`.
        private: whether a new repository is seen by its owner alone.

    Returns:
        `run`, `repo`, `files` (each with `name` and `bytes`), `folder` (None where it was uploaded), `url`
        and `commit` (None where it was not).

    Raises:
        ScenarioError: for a run that is not done, a wrong name, or a folder that holds something.
        NotPublished: where the hub does not take it.
    """
    refuse_name(repo)
    if not LICENSE.fullmatch(license_name):
        expected = "a licence as the hub calls it, such as apache-2.0, openrail or other"
        raise ScenarioError([printable(f"--license {license_name}: got no such name, expected {expected}")])
    run = facts(path)
    with TemporaryDirectory(prefix="fedray-publish-") as temporary:
        staged = Path(temporary)
        names = package(run, repo, license_name, staged)
        listed = [{"name": name, "bytes": (staged / name).stat().st_size} for name in names]
        done: dict[str, Any] = {"url": None, "commit": None}
        if dry_run is not None:
            _put(staged, dry_run)
        else:
            weights = run.result["weights_sha256"][:12]
            message = f"{run.scenario.name}: {run.result['rounds']} rounds, weights {weights}"
            done = upload(staged, repo, private, message)
    folder = None if dry_run is None else str(dry_run)
    return {"run": str(path), "repo": repo, "folder": folder, **done, "files": listed}


def _put(staged: Path, folder: Path) -> None:
    """Copies what was written to where a person asked for it."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            got = "a folder that holds other files" if folder.is_dir() else "a file"
            raise ScenarioError(
                [printable(f"--dry-run {folder}: got {got}, expected a new or an empty folder")]
            )
        shutil.copytree(staged, folder, dirs_exist_ok=True)
    except OSError as e:
        raise ScenarioError(
            [printable(f"--dry-run {folder}: got {e.strerror or e}, expected a place that can be written")]
        ) from None
