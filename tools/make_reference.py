"""Writes the scenario reference: `python tools/make_reference.py > docs/scenario.md`, after every change of a
section. All of it stands in fedray/scenario: docstrings, fields, their descriptions and defaults."""

import json
import re
from collections.abc import Iterator, Sequence
from inspect import getdoc
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedray.scenario.base import Section
from fedray.scenario.kinds import OWN
from fedray.scenario.scenario import Scenario

INTRO = """# Scenario reference

A scenario is one YAML 1.2 file. Its sections stand below, each with its keys; a key that is not here is an error. A
section that may be one of several is a mapping with a `kind`, such as `topology: {kind: relay, chains: 2}`, whose other
keys are that kind's own. In place of a kind's name, `module:Class` is a kind of your own: a class in `module.py` beside
the scenario, or in an installed package, whose own section says what other keys there are. Key names end in their
unit: `_s` seconds, `_j` joules, `_w` watts, `_bytes`, `_hz`, `_bps` bits per second, `_dbm`, `_db`, `_m` metres, `_mps`
metres per second. Paths are relative to the scenario's file; `shipped:NAME` is data inside the package.

This page is made from the code: `python tools/make_reference.py > docs/scenario.md`. The same words stand in the schema
that `fedray copy` puts beside a scenario, so that an editor shows them as you type.
"""
MOST = 1_000_000_000  # a limit against slips of the finger, which no reader needs to see


Kind = type[BaseModel]


class Reference:
    """The page: a heading for each section class, at the first path where a scenario may have it."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}  # of that place, by the class's name
        self.fields: dict[str, list[FieldInfo]] = {}  # at a path, those whose kinds are others
        self.classes = {kind.__name__: kind for kind in subclasses(Section)}
        self.written: set[str] = set()  # paths that have their heading
        self._place(Scenario, "")

    def _place(self, section: Kind, path: str) -> None:
        """Finds the path of every class below a section, and of those they inherit from."""
        for key, field in section.model_fields.items():
            here = joined(path, key)
            known = [kind for other in self.fields.get(here, []) for kind in sections_of(other.annotation)]
            if not set(known) & set(sections_of(field.annotation)):
                self.fields.setdefault(here, []).append(field)
            for kind in sections_of(field.annotation):
                if kind.__name__ not in self.paths:
                    for one in (kind, *bases(kind)):
                        self.paths.setdefault(one.__name__, here)
                    self._place(kind, here)

    def page(self) -> str:
        parts = [INTRO, self._table(Scenario, list(Scenario.model_fields))]
        return "\n".join([*parts, *self._below(Scenario, "", list(Scenario.model_fields), "##")])

    def _below(self, section: Kind, path: str, keys: Sequence[str], level: str) -> Iterator[str]:
        """The headings of those sections within a section that have none yet."""
        for key in keys:
            here = joined(path, key)
            fields = self.fields[here]
            kinds = [kind for field in fields for kind in sections_of(field.annotation)]
            if here in self.written or here not in map(self._path, kinds):
                continue
            self.written.add(here)
            yield f"{level} {here}\n"
            if tagged := [kind for kind in kinds if tags(kind)]:
                said = [str(field.description).partition(" None:")[0] for field in fields]
                yield marked(" ".join(said), ()) + "\n"
                yield table(["kind", "what it is"], [[self._link(kind), _of_kind(kind)] for kind in tagged])
            inherited = [b for kind in kinds for b in bases(kind) if not tags(b)]
            new = [kind for kind in dict.fromkeys([*kinds, *inherited]) if self._path(kind) == here]
            for kind in new:
                yield from self._section(kind, here)
            for kind in new:
                yield from self._below(kind, here, own_keys(kind), "###")

    def _path(self, section: Kind) -> str:
        return self.paths[section.__name__]

    def _section(self, section: Kind, path: str) -> Iterator[str]:
        """What a section is, and its keys."""
        if (title := self._title(section)) != path:
            yield f"{'###' if '.' not in path else '####'} {title}\n"
        yield f"{getdoc(section)}\n"
        if own := own_keys(section):
            yield self._table(section, own)
        if rest := [f"`{key}`" for key in section.model_fields if key not in [*own, "kind"]]:
            also = "Also the" if own else "The"
            yield f"{also} keys of {self._link(next(bases(section)))}: {', '.join(rest)}.\n"

    def _title(self, section: Kind) -> str:
        """A section's heading: its path, and its kind; of one that kinds inherit from, how its docstring
        begins."""
        path, names = self._path(section), tags(section)
        if not names and any(section in bases(kind) for kind in subclasses(section)):
            first = re.split(r"[:.,]", str(getdoc(section)))[0]
            names = [first[0].lower() + first[1:]]
        return f"{path}: {', '.join(names)}" if names else path

    def _link(self, section: Kind) -> str:
        title = self._title(section)
        return f"[{title.partition(': ')[2] or title}](#{anchor(title)})"

    def _table(self, section: Kind, keys: Sequence[str]) -> str:
        """A row a key: what it may be, its default, what it is."""
        schema, rows = section.model_json_schema(), []
        for key in keys:
            said = schema["properties"][key]
            default = "required" if key in schema.get("required", ()) else shown(said.get("default"))
            value = self._words(said, joined(self.paths.get(section.__name__, ""), key))
            rows.append([f"`{key}`", value, default, marked(said["description"], literals_in(said))])
        return table(["key", "value", "default", "what it is"], rows)

    def _words(self, said: dict[str, Any], here: str = "", many: str = "") -> str:
        """What a JSON Schema allows, in words.

        Args:
            said: the schema.
            here: the path of the key, whose kinds may have a heading of their own.
            many: the plural's ending.
        """
        if "$ref" in said:
            return self._link(self.classes[said["$ref"].rpartition("/")[2]])
        if len(several := options(said)) > 1 and "$ref" in several[0] and here in self.paths.values():
            return f"[{here}](#{anchor(here)})"
        if several != [said]:
            return ", or ".join(dict.fromkeys(self._words(one, here, many) for one in several))
        if literals := choices(said):
            return " or ".join(filter(None, [", ".join(literals[:-1]), literals[-1]]))
        if said.get("type") == "array":
            count = f"{said['minItems']} " if said.get("minItems") == said.get("maxItems", 0) else ""
            return f"list{many} of {count}{self._words(said['items'], here, 's')}"
        if said.get("type") == "object":
            (inner,) = said.get("patternProperties", {"": said.get("additionalProperties")}).values()
            return f"mapping{many} of names to {self._words({} if inner is True else inner, here, 's')}"
        words = {"boolean": "true or false", "string": f"text{many}"}
        return words.get(said.get("type", ""), f"{said.get('type', 'value')}{many}{limits(said)}")


def _of_kind(kind: Kind) -> str:
    """What a kind is, without its name, which stands beside it."""
    text, names = str(kind.model_fields["kind"].description), tags(kind)
    text = text.removeprefix(f"{names[0]}: ") if len(names) == 1 else marked(text, [f"`{n}`" for n in names])
    return text[0].upper() + text[1:]


def limits(said: dict[str, Any]) -> str:
    """The range of a number, in words."""
    words = {"exclusiveMinimum": " above ", "minimum": " from ", "exclusiveMaximum": ", below "}
    words["maximum"] = " to " if "minimum" in said else ", up to "
    return "".join(f"{word}{said[key]:,}" for key, word in words.items() if said.get(key, MOST) != MOST)


def options(said: dict[str, Any]) -> list[dict[str, Any]]:
    """The members of a union but for null, and for kinds of one's own; of anything else, itself."""
    members = said.get("anyOf", said.get("oneOf", [said]))
    return [one for one in members if one.get("type") != "null" and one.get("title") != OWN]


def choices(said: dict[str, Any]) -> list[str]:
    """What may stand there as it is, as code."""
    return [f"`{one}`" for one in said.get("enum", [said["const"]] if "const" in said else [])]


def literals_in(said: dict[str, Any]) -> list[str]:
    """The choices of a schema and of what is in it."""
    inner = [one for one in options(said) if one is not said]
    inner += [said["items"]] if "items" in said else []
    return choices(said) + [literal for one in inner for literal in literals_in(one)]


def shown(default: Any) -> str:
    """A default as a scenario has it: of a section its kind alone."""
    if default is None:
        return "none"
    if isinstance(default, dict):
        return f"`{default['kind']}`" if "kind" in default else "`{}`"
    if isinstance(default, float):
        return f"`{default:g}`".replace("e+0", "e")
    return f"`{default if isinstance(default, str) and default else json.dumps(default)}`"


def marked(text: str | None, literals: Sequence[str]) -> str:
    """A description as Markdown, its choices as code."""
    text = re.sub(r"([*|<])", r"\\\1", str(text))
    for literal in literals:
        text = re.sub(rf"(?<![\w.`]){re.escape(literal.strip('`'))}:", f"{literal}:", text)
    return text


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def anchor(title: str) -> str:
    """How GitHub and MkDocs name a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def sections_of(annotation: Any) -> list[Kind]:
    """The section classes of an annotation, in their order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in sections_of(part)]


def bases(section: Kind) -> Iterator[Kind]:
    """The sections that one inherits from, the nearest first."""
    return (b for b in section.__mro__[1:] if issubclass(b, Section) and b is not Section)


def own_keys(section: Kind) -> list[str]:
    return [key for key in section.model_fields if key in section.__annotations__ and key != "kind"]


def subclasses(section: Kind) -> Iterator[Kind]:
    for kind in section.__subclasses__():
        yield kind
        yield from subclasses(kind)


def tags(section: Kind) -> list[str]:
    """The names that its `kind` may have."""
    return list(get_args(section.model_fields["kind"].annotation)) if "kind" in section.model_fields else []


if __name__ == "__main__":
    print(Reference().page(), end="")
