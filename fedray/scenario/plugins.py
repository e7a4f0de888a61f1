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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

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
        module = _load(module_name, file) if file else import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name is not None and e.name != module_name.split(".")[0]:  # one that it imports
            raise NoKind(f"{kind!r}, which {_last_line(e, module_name)}", "a module that imports") from None
        where = " or ".join(dict.fromkeys(str(folder) for folder in folders))
        expected = (
            f"{module_name}.py in {where}, FEDRAY_CODE with its folder, or an installed package"
            if where
            else "FEDRAY_CODE with its folder, or an installed package"
        )
        raise NoKind(f"{kind!r}, whose module is not there", expected) from None
    except Exception as e:
        raise NoKind(f"{kind!r}, which {_last_line(e, module_name)}", "a module that imports") from None
    return _attribute(kind, module, class_name)


def use(kind: str) -> Any:
    """The class of a kind that has been found in this process before, by its path or its installed name."""
    if not is_path(kind):
        return installed()[kind].load()
    module_name, _, class_name = kind.partition(":")
    return _attribute(kind, import_module(module_name), class_name)


def plugins_of(kinds: Iterator[str]) -> list[Plugin]:
    """The users' modules that these kinds come from; those of installed packages need no copy."""
    modules = dict.fromkeys(kind.partition(":")[0] for kind in kinds if is_path(kind))
    return [_loaded[name] for name in modules if name in _loaded]


def install(plugins: Sequence[Plugin]) -> None:
    """Makes users' modules importable in this process, as they were where a run began."""
    for plugin in plugins:
        if _loaded.get(plugin.name) != plugin or plugin.name not in sys.modules:
            _execute(plugin)


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
            near = get_close_matches(part, [n for n in vars(value) if not n.startswith("_")], n=1)
            expected = f"{near[0]} (did you mean it?)" if near else "a class of that module"
            raise NoKind(f"{kind!r}, which has no {part}", expected)
        value = getattr(value, part)
    return value


def _last_line(e: BaseException, module_name: str) -> str:
    """What went wrong while a module was imported, with the user's own last line."""
    frames = traceback.extract_tb(e.__traceback__)
    if isinstance(e, SyntaxError):
        return f"does not import: {e.filename}:{e.lineno}: SyntaxError: {e.msg}"
    ours = str(Path(__file__).parents[1])
    own = [f for f in frames if not f.filename.startswith((ours, "<frozen"))]
    where = f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
    return f"does not import: {where}{type(e).__name__}: {e}"
