"""Kinds: what `kind:` names in a scenario, ours and a user's own behind one face.

A kind is one section (what a user writes, with the facts that others ask for), one implementation (imported
only when it is needed), and one line in its room's union here in `scenario/`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, cast, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fedray.lazy import resolve
from fedray.scenario import plugins
from fedray.scenario.base import Section

# What a user's class must be a subclass of, by the room that it is a kind of.
BASES = {
    "learner": "fedray.learners.learner:Learner",
    "tuning": "fedray.tuning.tuning:Tuning",
    "rule": "fedray.aggregation.rule:Rule",
    "hook": "fedray.transport.hooks:Hook",
    "topology": "fedray.topologies.topology:Topology",
    "selection": "fedray.planning.selection:Selection",
    "source": "fedray.data.source:Source",
    "partition": "fedray.data.partition:Partition",
    "link": "fedray.network.links:Link",
    "device": "fedray.network.devices:Device",
    "evaluation": "fedray.evaluation.evaluation:Evaluation",
    "callback": "fedray.callbacks:Callback",
    "defence": "fedray.executors.split.defences:Defence",
}


class KindSection(Section):
    """A section whose `kind` names what implements it."""

    kind: str
    implementation: ClassVar[str]  # `module:Class`

    def implemented_by(self) -> str:
        """`module:Class` of what implements this section."""
        return self.implementation


def implementation(section: KindSection) -> Any:
    """The class that implements a section, imported now."""
    if plugins.is_path(section.kind) or section.kind in plugins.installed():
        return plugins.use(section.kind)
    return resolve(section.implemented_by())


def user_section(kind: Any) -> type[KindSection] | None:
    """The section of a user's kind that has been found in this process before; None for what is none."""
    if not isinstance(kind, str) or not (plugins.is_path(kind) or kind in plugins.installed()):
        return None
    try:
        section: type[KindSection] = plugins.use(kind).Section
    except (ImportError, AttributeError, plugins.NoKind):
        return None
    return section


def user_kinds(section: Section) -> Iterator[str]:
    """Every kind in a section, and in those within it, that is a user's own."""
    for _, inner in section.sections():
        if isinstance(inner, KindSection) and plugins.is_path(inner.kind):
            yield inner.kind


class OpenKind:
    """The last annotation of a union of our sections, which then takes a user's own kinds of a room too:
    `Annotated[A | B, Discriminator("kind"), OpenKind("rule")]`.

    Args:
        room: one of BASES.
        names: kinds of ours that stand for themselves, without a section.
    """

    def __init__(self, room: str, names: Collection[str] = ()) -> None:
        self.room = room
        self.names = names

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members = get_args(source) or (source,)
        ours = {name for section in members for name in _names(section)}

        def validate(value: Any, inner: Any, info: Any) -> Any:
            if isinstance(value, KindSection) and _is_users(value):
                return value
            if isinstance(value, str) and self.names:
                value = value if value in self.names else {"kind": value}
            kind = value.get("kind") if isinstance(value, dict) else None
            if not isinstance(kind, str) or kind in ours:
                return inner(value)
            section = _find(self.room, kind, info.context)
            if section is not None:
                return section.model_validate(value, context=info.context)
            if ours:
                return inner(value)
            raise _no_kind(repr(kind), _expected(kind, self.names))

        # Written by what a value is, as pydantic's SerializeAsAny: a union knows only our own sections.
        as_it_is = core_schema.wrap_serializer_function_ser_schema(
            lambda value, inner: inner(value), schema=core_schema.any_schema()
        )
        return core_schema.with_info_wrap_validator_function(
            validate, handler(source), serialization=as_it_is
        )


def _expected(kind: str, names: Collection[str]) -> str:
    """What may stand where no section of ours does."""
    near = get_close_matches(kind, names, n=1)
    if near:
        return f"{near[0]} (did you mean it?)"
    return " or ".join([*names, "module:Class of your own"])


def _no_kind(got: str, expected: str) -> PydanticCustomError:
    return PydanticCustomError("no_kind", "{got}", {"got": got, "expected": expected})


def section_of(room: str, kind: str, user_class: Any) -> type[KindSection]:
    """The section of a user's class.

    Raises:
        NoKind: for a class that is no such kind.
    """
    base: Any = resolve(BASES[room])
    if not (isinstance(user_class, type) and issubclass(user_class, base)):
        what = (
            f"a class of {', '.join(c.__name__ for c in user_class.__bases__)}"
            if isinstance(user_class, type)
            else "no class"
        )
        raise plugins.NoKind(f"{kind!r}, which is {what}", f"a subclass of fedray.{base.__name__}")
    user_class = cast(Any, user_class)
    section: Any = user_class.Section
    if not (isinstance(section, type) and issubclass(section, base.Section)):
        raise plugins.NoKind(
            f"{kind!r}, whose Section is none", f"a subclass of fedray.{base.__name__}.Section"
        )
    return section


def _find(room: str, kind: str, context: Any) -> type[KindSection] | None:
    """The section of a user's kind; None for a name that is nobody's."""
    entry = plugins.installed().get(kind)
    if not plugins.is_path(kind) and entry is None:
        return None
    folders: list[Path] = (context or {}).get("folders", [])
    try:
        result = entry.load() if entry is not None else plugins.find(kind, folders)
        return section_of(room, kind, result)
    except plugins.NoKind as e:
        raise _no_kind(e.got, e.expected) from None


def _names(section: Any) -> tuple[str, ...]:
    """The Literal kinds of a section of ours."""
    if not hasattr(section, "model_fields"):
        return ()
    return get_args(section.model_fields["kind"].annotation)


def _is_users(section: KindSection) -> bool:
    return plugins.is_path(section.kind) or section.kind in plugins.installed()
