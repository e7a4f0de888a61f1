"""Users' modules as files: which lie beside a scenario, what they import from beside themselves, and how a
process gets them that does not have the files."""

from __future__ import annotations

import ast
import hashlib
import linecache
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

NOT_USERS = {"fedray", *sys.stdlib_module_names}  # whatever lies beside a scenario


@dataclass(frozen=True)
class UserModule:
    """A user's module that lies beside a scenario, or beside one that does."""

    name: str
    file: str
    source: str

    @property
    def is_package(self) -> bool:
        return Path(self.file).name == "__init__.py"

    @property
    def folder(self) -> Path:
        """Where it was found; its name may have dots."""
        file = Path(self.file)
        inside = file.parent if self.is_package else file
        return inside.parents[self.name.count(".")]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()


def file_of(module_name: str, folder: Path) -> Path | None:
    """The file of a module in a folder, if there is one."""
    stem = folder.joinpath(*module_name.split("."))
    places = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((place.resolve() for place in places if place.is_file()), None)


def read(module_name: str, file: Path) -> UserModule:
    return UserModule(module_name, str(file), file.read_text(encoding="utf-8"))


def with_imports(module: UserModule) -> list[UserModule]:
    """A module, with what it imports from its own folder, anywhere in its text, and the packages of these.

    Raises:
        SyntaxError: for a text that is no Python.
    """
    modules = {module.name: module}
    waiting = [module]
    while waiting:
        for name in _imported(waiting.pop()):
            if name in modules or name.partition(".")[0] in NOT_USERS:
                continue
            if (file := file_of(name, module.folder)) is not None:
                modules[name] = read(name, file)
                waiting.append(modules[name])
            elif (folder := module.folder.joinpath(*name.split("."))).is_dir():  # a package without a file
                modules[name] = UserModule(name, str(folder / "__init__.py"), "")
    return list(modules.values())


def _imported(module: UserModule) -> Iterator[str]:
    """Names that a module's text imports, or that may be attributes of what it imports; its packages, too."""
    names = [module.name]
    package = module.name if module.is_package else module.name.rpartition(".")[0]
    for node in ast.walk(ast.parse(module.source, module.file)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    for name in filter(None, names):
        parts = name.split(".")
        yield from (".".join(parts[:n]) for n in range(1, len(parts) + 1))


class UserFinder(MetaPathFinder, Loader):
    """Imports users' modules from their texts, before anybody else's of the same name."""

    def __init__(self) -> None:
        self.modules: dict[str, UserModule] = {}  # by their names
        self._executed: dict[str, UserModule] = {}

    def add(self, modules: Sequence[UserModule]) -> None:
        """From now on these are imported by their names; what was loaded of them is forgotten where any of
        them is another than it was."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        own = [module.name for module in modules if self.has_executed(module.name)]
        if any(self._executed[module.name] != module for module in modules if module.name in own):
            for name in own:
                del sys.modules[name]
        self.modules |= {module.name: module for module in modules}

    def has_executed(self, name: str) -> bool:
        """Whether the module of this name that is loaded came from here."""
        return name in self._executed and name in sys.modules

    def load(self, modules: Sequence[UserModule]) -> ModuleType:
        """The first of these modules, which may import the others. All is as it was before where that
        raises."""
        first = modules[0].name
        known = self.modules.copy()
        loaded = {module.name: sys.modules.get(module.name) for module in modules}
        try:
            self.add(modules)
            if not self.has_executed(first):
                sys.modules.pop(first, None)
            return import_module(first)
        except BaseException:
            self.modules = known
            sys.modules.update({name: module for name, module in loaded.items() if module is not None})
            raise

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        module = self.modules.get(fullname)
        if module is None:
            return None
        return spec_from_loader(fullname, self, origin=module.file, is_package=module.is_package)

    def exec_module(self, module: ModuleType) -> None:
        user_module = self.modules[module.__name__]
        file = user_module.file
        source = user_module.source
        lines = source.splitlines(keepends=True)
        linecache.cache[file] = (len(source), None, lines, file)  # for tracebacks, where the file is not
        module.__file__ = file
        exec(compile(source, file, "exec"), module.__dict__)
        self._executed[user_module.name] = user_module
