"""Kinds that a user brings: `module:Class`, found beside the scenario, or in an installed package.

A module beside the scenario is loaded from its file, so that its name need not be free anywhere else; the
source goes with a run to its workers, and its sha256 into the run folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from fedray.errors import reason

OURS = str(Path(__file__).parents[1])
_NAMES = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
PATH_PATTERN = f"^{_NAMES}:{_NAMES}$"  # of `module:Class`, in a JSON schema
GROUP = "fedray.kinds"  # of entry points: an installed package's kinds by a short name


class NoKind(ValueError):
    """A kind that is not there, or is none: what was got, and what was expected."""

    def __init__(self, got: str, expected: str) -> None:
        super().__init__(got, expected)
        self.got = got
        self.expected = expected


@dataclass(frozen=True)
class Plugin:
    """A user's module that lies beside a scenario."""

    name: str
    file: str
    source: str

    @property
    def folder(self) -> Path:
        """Where it was found; its name may have dots."""
        file = Path(self.file)
        inside = file.parent if file.name == "__init__.py" else file
        return inside.parents[self.name.count(".")]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()


_loaded: dict[str, Plugin] = {}  # by module


def is_path(kind: str) -> bool:
    """Whether a kind is `module:Class`."""
    module, colon, name = kind.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def installed() -> dict[str, EntryPoint]:
    """The kinds of installed packages by their names."""
    return _installed(tuple(sys.path))


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """The same, looked for once as long as `sys.path` stays as it is."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def find(kind: str, folders: Sequence[Path]) -> Any:
    """The class that `module:Class` names.

    Args:
        kind: as a scenario has it.
        folders: where the module may lie, the first one that has it; then among installed packages.

    Raises:
        NoKind: for a module that is not there or does not import, and for a class that is not in it.
    """
    module_name, _, class_name = kind.partition(":")
    file = next((file for folder in folders if (file := _file_of(module_name, folder))), None)
    try:
        module = _load(module_name, file) if file else _import(module_name)
    except ModuleNotFoundError as e:
        if f"{module_name}.".startswith(f"{e.name}."):
            raise NoKind(f"{kind}, whose module is not there", _expected_module(kind, folders)) from None
        raise _broken(kind, e, file) from None  # one that it imports
    except (Exception, SystemExit) as e:
        raise _broken(kind, e, file) from None
    return _attribute(kind, module, class_name)


def load(entry: EntryPoint) -> Any:
    """The class of an installed kind. Raises NoKind for one whose package does not import, or lacks it."""
    try:
        module = _import(entry.module)
    except (Exception, SystemExit) as e:
        raise _broken(entry.name, e, None) from None
    return _attribute(entry.name, module, entry.attr)


def use(kind: str) -> Any:
    """The class of a kind that has been found in this process before, by its path or its installed name."""
    if not is_path(kind):
        return installed()[kind].load()
    module_name, _, class_name = kind.partition(":")
    module = sys.modules.get(module_name) or _import(module_name)
    return _attribute(kind, module, class_name)


def at_users_line(error: BaseException) -> str:
    """` (FILE:LINE)` of the last line in a user's module that an exception passed; nothing where there is
    none."""
    files = {plugin.file for plugin in _loaded.values()}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def plugins_of(kinds: Iterable[str]) -> list[Plugin]:
    """The users' modules that these kinds come from; those of installed packages need no copy."""
    modules = dict.fromkeys(kind.partition(":")[0] for kind in kinds if is_path(kind))
    return [_loaded[name] for name in modules if name in _loaded]


def releases_of(kinds: Iterable[str]) -> dict[str, str]:
    """Of installed kinds, the name and version of each one's package."""
    entries = {kind: installed()[kind] for kind in kinds if kind in installed()}
    return {kind: f"{e.dist.name} {e.dist.version}" for kind, e in sorted(entries.items()) if e.dist}


def install(plugins: Sequence[Plugin]) -> None:
    """Makes users' modules importable in this process, as they were where a run began."""
    for plugin in plugins:
        if _loaded.get(plugin.name) != plugin or plugin.name not in sys.modules:
            _execute(plugin)


def _import(module_name: str) -> ModuleType:
    """A module of an installed package. The folder in which Python was started with `-m` or `-c` is none: it
    may be a stranger's run folder."""
    if module_name in _loaded:  # from beside another scenario
        raise ModuleNotFoundError(name=module_name)
    before = list(sys.path)
    beside = {str(plugin.folder) for plugin in _loaded.values()}
    here = sys.path[:1] if sys.path[:1] in ([""], [str(Path.cwd())]) else []
    sys.path[:] = [name for name in sys.path[len(here) :] if name not in beside]
    try:
        return import_module(module_name)
    finally:
        sys.path[:] = before


def _file_of(module_name: str, folder: Path) -> Path | None:
    stem = folder.joinpath(*module_name.split("."))
    places = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((place.resolve() for place in places if place.is_file()), None)


def _load(module_name: str, file: Path) -> ModuleType:
    """The module of a file; the one of before, where that has not changed."""
    plugin = Plugin(module_name, str(file), file.read_text(encoding="utf-8"))
    if _loaded.get(module_name) == plugin and module_name in sys.modules:
        return sys.modules[module_name]
    return _execute(plugin)


def _execute(plugin: Plugin) -> ModuleType:
    folder = str(plugin.folder)
    if folder not in sys.path:  # for what lies beside it
        sys.path.append(folder)
    spec = importlib.util.spec_from_loader(plugin.name, loader=None, origin=plugin.file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = plugin.file
    lines = plugin.source.splitlines(keepends=True)
    linecache.cache[plugin.file] = (len(plugin.source), None, lines, plugin.file)  # where the file is not
    before = sys.modules.get(plugin.name)
    sys.modules[plugin.name] = module
    try:
        exec(compile(plugin.source, plugin.file, "exec"), module.__dict__)
    except BaseException:
        sys.modules.pop(plugin.name)
        if before is not None:
            sys.modules[plugin.name] = before
        raise
    _loaded[plugin.name] = plugin
    return module


def _attribute(kind: str, module: ModuleType, class_name: str) -> Any:
    value: Any = module
    for part in class_name.split("."):
        if not hasattr(value, part):
            classes = {name: one for name, one in vars(value).items() if isinstance(one, type)}
            own = [name for name, one in classes.items() if one.__module__ == module.__name__]
            expected = did_you_mean(part, classes) or " or ".join(own) or "a class of that module"
            raise NoKind(f"{kind}, but {module.__name__} has no {class_name}", expected)
        value = getattr(value, part)
    return value


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """What is said of a name that is nearly one of these; nothing where it is none."""
    near = get_close_matches(name, list(names), n=1)
    return f"{near[0]} (did you mean it?)" if near else ""


def _expected_module(kind: str, folders: Sequence[Path]) -> str:
    """Where the module of a kind should be, or the name of one that is nearly its own."""
    module_name, _, class_name = kind.partition(":")
    names = [file.stem for folder in folders for file in sorted(folder.glob("*.py"))]
    near = get_close_matches(module_name.removesuffix(".py"), names, n=1)
    if near:
        return f"{near[0]}:{class_name} (did you mean it?)"
    places = [f"{module_name}.py in {folder}" for folder in dict.fromkeys(folders)]
    return " or ".join([*places, "FEDRAY_CODE with its folder", "an installed package"])


def _broken(kind: str, error: BaseException, file: Path | None) -> NoKind:
    """A module that raises while it is imported, with the last line of it, or of one beside it, that did.

    Args:
        kind: as a scenario has it.
        error: what it raised.
        file: the module's; None: of an installed package.
    """
    got = f"{type(error).__name__}: {reason(error)}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((OURS, "<"))]
    if file is not None:
        frames = [f for f in frames if Path(f.filename).is_relative_to(file.parent)]
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(file or "")
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}:{error.lineno}"
        got = f"{type(error).__name__}: {error.msg}"
    return NoKind(f"{kind}, which does not import: {place and f'{place}: '}{got}", "a module that imports")
