"""The files of one kind below a folder, by their names: whose each is, and what it is called."""

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from fedray.data.folders import FileBelow, Walk, composed, refuse_shared
from fedray.scenario.base import Refused


def named_files(
    root: Path,
    key: str,
    suffix: str,
    clients: bool,
    only: Sequence[str] | None = None,
    closed: Collection[str] = (),
) -> dict[str, FileBelow]:
    """The files below a folder by their names without suffix, sorted; where its folders are clients, no file
    is two clients'.

    Args:
        root: the folder.
        key: the scenario's key that named it.
        suffix: of the files, such as ".txt".
        clients: whether each of the root's folders is a client's, and each file that lies in none.
        only: owners whose files are read; None for all.
        closed: owners whose folders no link may lead into from another.

    Raises:
        Refused: for two files of one name, and for a file of two clients.
    """

    def wanted(name: str) -> bool:
        return name.lower().endswith(suffix)

    files = [file for file in Walk(root, key, wanted, only, closed).files() if wanted(file.names[-1])]
    if only is not None:
        owners = {composed(name) for name in only}
        files = [file for file in files if owner(file) in owners]
    if clients:
        refuse_shared(files, owner, key)
    named: dict[str, FileBelow] = {}
    alone = {owner(file): file for file in files if len(file.names) == 1}
    for file in files:
        name = PurePosixPath(*file.names).with_suffix("").as_posix()
        other = named.setdefault(name, file)
        if other is file and clients:
            other = alone.get(owner(file), file)
        if other is not file:
            got = f"{other.file} and {file.file}, which are one name without {suffix}"
            raise Refused(key, got, "a name for each")
    return named


def owner(file: FileBelow) -> str:
    """The first folder of a file, or the file itself where it lies in none."""
    return file.names[0] if len(file.names) > 1 else PurePosixPath(file.names[0]).stem
