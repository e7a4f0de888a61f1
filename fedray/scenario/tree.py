"""A scenario's text as a tree that knows the line of every key, and how large a text or a tree may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode
from ruamel.yaml.scanner import RoundTripScanner
from ruamel.yaml.tokens import Token

from fedray.errors import reason
from fedray.scenario.explain import ScenarioError, kind_of

MOST_BYTES = 1_000_000  # of a text; no shipped scenario has 5,000
# of a tree whose aliases are written out: a table of rates between 400 clients has 160,000
MOST_NODES = 200_000
MOST_LEVELS = 100
Mark = tuple[int, int]  # line and column, from 0
# what it raises
RUAMELS = (YAMLError, ValueError, TypeError, AttributeError, LookupError, AssertionError, RecursionError)


def read(file: Path) -> tuple[str, Any]:
    """A file's text and its tree.

    Raises:
        ScenarioError: for what is no file of text, too large, no YAML, or no mapping.
    """
    text = text_of(file)
    return text, parse_sections(text, file)


def parse_sections(text: str, file: Path) -> Any:
    """The tree of a scenario's text, which errors say is in `file`. Raises ScenarioError for what is no YAML,
    or no mapping."""
    tree = parse(text, str(file))
    if not isinstance(tree, dict):
        raise ScenarioError(
            [f"{file}:1: got {kind_of(tree)}, expected sections (name, topology, population, ...)"]
        )
    return tree


def text_of(file: Path) -> str:
    """Raises ScenarioError for what is no file of text, or too large."""
    try:
        if file.exists() and not file.is_file():
            raise ScenarioError([f"{file}: got a folder, a device or a pipe, expected a scenario file"])
        if (size := file.stat().st_size) > MOST_BYTES:
            raise ScenarioError(
                [f"{file}: got {size:,} bytes, expected a scenario of at most {MOST_BYTES:,}"]
            )
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ScenarioError([f"{file}: got {reason(e)}, expected a scenario file"]) from None


def parse(text: str, where: str) -> Any:
    """The tree of a text that stands at `where`.

    Raises:
        ScenarioError: for what is no YAML, contains itself, or is too large with its aliases written out.
    """
    yaml = YAML(typ="rt", pure=True)
    yaml.Scanner = BoundedScanner
    yaml.Constructor = Bounded
    try:
        return yaml.load(text)
    except Unbounded as e:
        raise ScenarioError([f"{where}:{e.line}: {e}"]) from None
    except MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line = mark.line + 1 if mark else 1
        problem = (e.problem or e.context or "bad YAML").split("\n")[0].strip()
        raise ScenarioError([f"{where}:{line}: got {problem}, expected YAML 1.2"]) from None
    except RUAMELS as e:
        raise ScenarioError([f"{where}:1: got {reason(e)}, expected YAML 1.2"]) from None


class Unbounded(ValueError):
    """A node that contains itself, lies too deep, or is too large."""

    def __init__(self, at: Node | Token, got: str, expected: str) -> None:
        super().__init__(f"got {got}, expected {expected}")
        self.line = at.start_mark.line + 1


class BoundedScanner(RoundTripScanner):
    """ruamel's, which takes seconds over thousands of brackets, one in another, before Python's limit of
    recursion ends it."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:
        super().fetch_flow_collection_start(TokenClass, to_push)
        if len(self.flow_context) > MOST_LEVELS:
            raise Unbounded(self.tokens[-1], f"more than {MOST_LEVELS} levels", "fewer, one in another")


class Bounded(RoundTripConstructor):
    """ruamel's, which would put nothing in the place of an alias of what contains it."""

    def construct_document(self, node: Any) -> Any:
        nodes, _ = _size(node, 0, {})
        if nodes > MOST_NODES:
            raise Unbounded(node, f"{nodes:,} values with aliases written out", f"at most {MOST_NODES:,}")
        return super().construct_document(node)


def _size(node: Node, level: int, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Nodes of a tree as if its aliases were written out, and its levels. `known` has those of the nodes that
    were gone through, by identity, and None for the ones that lie above this one, so that none is gone
    through twice.

    Raises:
        Unbounded: for a node that contains itself, or more than MOST_LEVELS levels.
    """
    if isinstance(node, ScalarNode):
        return 1, 1
    size = known.get(id(node))
    if size is None:
        if id(node) in known:
            raise Unbounded(node, "a value that contains itself", "one that ends")
        known[id(node)] = None
        inner = (
            [child for pair in node.value for child in pair] if isinstance(node, MappingNode) else node.value
        )
        nodes = 1
        levels = 1
        for child in inner if level < MOST_LEVELS else ():
            more, below = _size(child, level + 1, known)
            nodes = nodes + more
            levels = max(levels, below + 1)
        size = known[id(node)] = (nodes, levels)
    if level + size[1] > MOST_LEVELS:
        raise Unbounded(node, f"more than {MOST_LEVELS} levels", "fewer, one in another")
    return size


def apply(tree: Any, setting: str) -> list[str]:
    """Puts one `a.b=v` into the tree; whether the key exists is the model's to say."""
    path, equals, value = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        return [f"--set {setting}: got {setting!r}, expected section.key=value"]
    try:
        new = parse(value, f"--set {path}")
    except ScenarioError as e:
        return e.problems
    return [f"--set {path}: {fault}" for fault in put(tree, path.strip(), new, None)]


def put(tree: Any, path: str, value: Any, mark: Mark | None) -> list[str]:
    """Puts a value at `a.b`, remembering the line it comes from; gives what is wrong with the path.

    Args:
        tree: of a scenario's file.
        path: dotted.
        value: plain YAML.
        mark: line and column from 0, where it comes from a file.
    """
    keys = path.split(".")
    at = tree
    for i, key in enumerate(keys):
        last = i == len(keys) - 1
        if isinstance(at, list):
            if not key.isdecimal() or int(key) >= len(at):
                return [f"got {key!r}, expected an index below {len(at)}"]
            place: Any = int(key)
        elif isinstance(at, dict):
            place = key
            if not last and not isinstance(at.get(key), (dict, list)):
                at[key] = CommentedMap()
        else:
            return [f"got a key under {'.'.join(keys[:i])}, expected a section there"]
        if last:
            at[place] = value
        lines: Any = getattr(at, "lc", None)
        if mark and lines is not None:
            lines.add_kv_line_col(place, [*mark, *mark])
        at = at[place]
    return []


def mark_of(tree: Any, key: Any) -> Mark | None:
    """Line and column of a key, from 0; none where the text does not have it."""
    try:
        marks = tree.lc
        marked: Mark = marks.key(key) if isinstance(tree, dict) else marks.item(key)
        return marked
    except (AttributeError, KeyError, IndexError, TypeError):
        return None


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values that are set, each with its dotted path."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from flat(value, f"{prefix}{key}.")
    elif node is not None:
        yield prefix[:-1], node


def changes(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """What `put` has to put where so that one plain tree becomes another, as few values as that takes: keys
    of sections that have the same keys, and otherwise whole sections.

    Args:
        before: the one.
        after: the other.
        key: the dotted key of both.
    """
    same = isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys()
    if same and before.get("kind") == after.get("kind") and not any("." in name for name in before):
        for name, value in after.items():
            yield from changes(before[name], value, f"{key}.{name}" if key else name)
    elif before != after:
        yield key, after


def copied(node: Any, known: dict[int, Any] | None = None) -> Any:
    """A tree of its own with the lines of this one, and what is one node here is one there. (copy.deepcopy
    copies a ruamel list's lines anew for each of its items: minutes for thousands of places.)

    Args:
        node: of a scenario's tree.
        known: the copies made so far, by the identity of what was copied.
    """
    known = {} if known is None else known
    if not isinstance(node, (dict, list)):
        return node
    if id(node) in known:
        return known[id(node)]
    new: Any = type(node)()
    known[id(node)] = new
    if isinstance(node, dict):
        for key, value in node.items():
            new[key] = copied(value, known)
    else:
        new.extend([copied(value, known) for value in node])
    if (lines := getattr(node, "lc", None)) is not None:
        new.lc.data = dict(lines.data or {})
    return new


def plain(node: Any) -> Any:
    """The tree without ruamel's types."""
    if isinstance(node, dict):
        return {k if isinstance(k, str) else str(k): plain(v) for k, v in node.items()}
    if isinstance(node, list):
        return [plain(v) for v in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node
