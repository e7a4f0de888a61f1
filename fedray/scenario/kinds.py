"""Kinds: what `kind:` names in a scenario, ours and a user's own behind one face.

A kind is one section (what a user writes, with the facts that others ask for), one implementation (imported
only when it is needed), and one line in its room's union here in `scenario/`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, cast, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fedray.errors import reason
from fedray.lazy import resolve
from fedray.scenario import plugins
from fedray.scenario.base import Refused, Section, file_paths

# What a user's class must be a subclass of, by the room that it is a kind of.
BASES = {
    "learner": "fedray.learners.learner:Learner",
    "codec_channel": "fedray.learners.codec_channels:CodecChannel",
    "tuning": "fedray.tuning.tuning:Tuning",
    "rule": "fedray.aggregation.rule:Rule",
    "hook": "fedray.transport.hooks:Hook",
    "attack": "fedray.adversary.attack:Attack",
    "personal": "fedray.personal.personal:Personal",
    "privacy": "fedray.privacy.mechanism:Mechanism",
    "algorithm": "fedray.learners.agents.algorithm:Algorithm",
    "incentive": "fedray.incentives.incentive:Incentive",
    "weighting": "fedray.augmentation.weighting:Weighting",
    "optimizer": "fedray.executors.optimizer:Optimizer",
    "topology": "fedray.topologies.topology:Topology",
    "mode": "fedray.aggregation.modes:Mode",
    "staleness": "fedray.aggregation.staleness:Staleness",
    "selection": "fedray.planning.selection:Selection",
    "source": "fedray.data.source:Source",
    "augment": "fedray.data.augment:Augment",
    "partition": "fedray.data.partition:Partition",
    "cache_policy": "fedray.serving.cache:CachePolicy",
    "environment": "fedray.serving.environment:Environment",
    "serving_rule": "fedray.serving.rule:ServingRule",
    "link": "fedray.network.links:Link",
    "allocation": "fedray.network.allocations:Allocation",
    "device": "fedray.network.devices:Device",
    "evaluation": "fedray.evaluation.evaluation:Evaluation",
    "features": "fedray.evaluation.features:Features",
    "callback": "fedray.callbacks:Callback",
    "defence": "fedray.executors.split.defences:Defence",
    "amount": "fedray.augmentation.amount:Amount",
    "relay_defence": "fedray.executors.relay_defence:RelayDefence",
}

OWN = "A kind of your own"  # what the JSON schema calls it


class KindSection(Section):
    """A section whose `kind` names what implements it."""

    kind: str
    implementation: ClassVar[str]  # `module:Class`
    # the key that a value alone stands for, where a kind may be written short: `{crop: 4}`
    short: ClassVar[str | None] = None

    def implemented_by(self) -> str:
        """`module:Class` of what implements this section."""
        return self.implementation


def implementation(section: KindSection) -> Any:
    """The class that implements a section, imported now."""
    return plugins.use(section.kind) if _is_users(section) else resolve(section.implemented_by())


def _is_users(section: KindSection) -> bool:
    """Whether a section is of a user's own kind."""
    own_name = section.kind in _names(type(section)) and hasattr(section, "implementation")
    return plugins.is_path(section.kind) or not own_name


def user_section(kind: Any) -> type[KindSection] | None:
    """The section of a user's kind that has been found in this process before; None for what is none."""
    if not isinstance(kind, str) or not (plugins.is_path(kind) or kind in plugins.installed()):
        return None
    try:
        section: type[KindSection] = plugins.use(kind).Section
    except Exception:  # it is none, which is said elsewhere
        return None
    return section


def user_kinds(section: Section) -> Iterator[str]:
    """Every kind in a section, and in those within it, that is a user's own."""
    for _, inner in section.sections():
        if isinstance(inner, KindSection) and _is_users(inner):
            yield inner.kind


def user_paths(section: Section) -> Iterator[tuple[str, str]]:
    """What the FilePaths of a user's own kinds in a section name, each with its dotted key."""
    for key, inner in section.sections():
        if isinstance(inner, KindSection) and _is_users(inner):
            yield from ((f"{key}.{name}", path) for name, path in file_paths(inner))


class OpenKind:
    """The last annotation of a union of our sections, which then takes a user's own kinds of a room too:
    `Annotated[A | B, Discriminator("kind"), OpenKind("rule")]`.

    Args:
        room: one of BASES.
        names: kinds of ours that stand for themselves, without a section.
        plain: whether a kind's name alone stands for its section with no other keys.
        short: whether its name may stand before its keys, or before the value of its `short` key.
    """

    def __init__(
        self, room: str, names: Collection[str] = (), plain: bool = False, short: bool = False
    ) -> None:
        self.room = room
        self.names = names
        self.plain = plain
        self.short = short

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members = get_args(source) or (source,)
        self._kinds = tuple(name for section in members for name in _names(section))
        self._sections = {name: section for section in members for name in _names(section)}
        ours = set(self._kinds)

        def validate(value: Any, inner: Any, info: Any) -> Any:
            if isinstance(value, KindSection) and _is_users(value):
                return value
            if isinstance(value, str) and (self.names or self.plain):
                value = value if value in self.names else {"kind": value}
            if self.short and isinstance(value, dict) and len(value) == 1 and "kind" not in value:
                value = self._written_out(*value.items())
            kind = value.get("kind") if isinstance(value, dict) else None
            if not isinstance(kind, str) or kind in ours:
                return inner(value)
            section = _find(self.room, kind, info.context)
            if section is not None:
                return _validated(section, value, info.context)
            if expected := _nearly(self.room, kind, ours):
                raise _no_kind(repr(kind), expected)
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

    def _written_out(self, short: tuple[str, Any]) -> dict[str, Any]:
        """The keys of a section that is written as its kind's name before them, or before a single value."""
        kind, given = short
        if given is None:
            return {"kind": kind}
        if isinstance(given, dict):
            return {"kind": kind, **given}
        section = self._sections.get(kind)
        if section is None:
            return {"kind": kind}
        if section.short is None:
            raise _no_kind(f"{kind} with {given!r}", "its keys")
        return {"kind": kind, section.short: given}

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Ours, those of installed packages with their own keys, and any `module:Class`."""
        ours = handler(core)
        form = "oneOf" if "oneOf" in ours else "anyOf"
        members = list(ours.get(form, [ours]))
        for name, section in _installed_sections(self.room):
            own = {"properties": {"kind": {"const": name}}, "required": ["kind"]}
            members.append({"allOf": [handler(section.__pydantic_core_schema__), own]})
            if self.names or self.plain:
                members.append({"const": name})
        path = {"type": "string", "pattern": plugins.PATH_PATTERN}
        members.append({"title": OWN, "type": "object", "properties": {"kind": path}, "required": ["kind"]})
        if self.names or self.plain:
            members.append({"title": OWN, **path})
        if self.plain:
            members.append({"enum": list(self._kinds)})
        if self.short:
            members += [_short_schema(name, section) for name, section in self._sections.items()]
        return {form: members}


def _short_schema(kind: str, section: Any) -> dict[str, Any]:
    """Of a section that is written as its kind's name before its keys, or before the value of one."""
    whole = section.model_json_schema()
    keys = {name: said for name, said in whole["properties"].items() if name != "kind"}
    needed = [name for name in whole.get("required", []) if name != "kind"]
    values = [{"type": "object", "properties": keys, "required": needed, "additionalProperties": False}]
    if section.short is not None:
        values.append(keys[section.short])
    return {
        "title": OWN,
        "type": "object",
        "properties": {kind: {"anyOf": values}},
        "required": [kind],
        "additionalProperties": False,
    }


def _installed_sections(room: str) -> Iterator[tuple[str, type[KindSection]]]:
    """The kinds of a room that installed packages have, but for those that do not import."""
    for name, entry in sorted(plugins.installed().items()):
        with suppress(plugins.NoKind):
            yield name, section_of(room, name, plugins.load(entry))


def _validated(section: type[KindSection], value: Any, context: Any) -> KindSection:
    """A user's section of these keys. What its own validators raise beside a ValueError is an error of its
    kind."""
    try:
        return section.model_validate(value, context=context)
    except ValidationError:
        raise
    except Exception as e:
        raise _no_kind(_raising(value["kind"], "Section", e), "a ValueError for what it refuses") from None


def conflicts(section: Section, scenario: Any) -> Iterator[Refused]:
    """What a section cannot go with in a scenario. What a user's raises instead of that is an error of its
    kind."""
    try:
        yield from section.conflicts(scenario)
    except Exception as e:
        if not (isinstance(section, KindSection) and _is_users(section)):
            raise
        yield Refused(".kind", _raising(section.kind, "conflicts", e), "fedray.Refused for what it refuses")


def _raising(kind: str, what: str, error: Exception) -> str:
    """A user's kind with what raises in it, and the user's own line."""
    said = f"{type(error).__name__}: {reason(error)}{plugins.at_users_line(error)}"
    return f"{kind}, whose {what} raises {said}"


def _nearly(room: str, kind: str, ours: Collection[str]) -> str:
    """What is said of a name that is nearly an installed kind's, or nearly `module:Class`; nothing of others.
    Those of ours go first."""
    if get_close_matches(kind, ours, n=1):
        return ""
    module, dot, name = kind.rpartition(".")
    if ":" not in kind and dot and name.isidentifier():
        return f"{module}:{name} (did you mean it?)"
    if set(kind) & set(":./"):
        return "module:Class, such as my_module:MyClass for a class in my_module.py"
    return plugins.did_you_mean(kind, plugins.installed())


def _expected(kind: str, names: Collection[str]) -> str:
    """What may stand where no section of ours does."""
    return plugins.did_you_mean(kind, names) or " or ".join([*names, "module:Class of your own"])


def _no_kind(got: str, expected: str) -> PydanticCustomError:
    return PydanticCustomError("no_kind", "{got}", {"got": got, "expected": expected})


def section_of(room: str, kind: str, user_class: Any) -> type[KindSection]:
    """The section of a user's class.

    Raises:
        NoKind: for a class that is no such kind.
    """
    base: Any = resolve(BASES[room])
    if not (isinstance(user_class, type) and issubclass(user_class, base)):
        what = "no class"
        if isinstance(user_class, type):
            what = f"a class of {', '.join(c.__name__ for c in user_class.__bases__)}"
        got = f"{kind}, which is no fedray.{base.__name__} but {what}"
        raise plugins.NoKind(got, f"a subclass of fedray.{base.__name__}")
    user_class = cast(Any, user_class)
    if missing := sorted(getattr(user_class, "__abstractmethods__", ())):
        raise plugins.NoKind(f"{kind}, which has no {' and no '.join(missing)}", "a class that has")
    section: Any = user_class.Section
    if not (isinstance(section, type) and issubclass(section, base.Section)):
        raise plugins.NoKind(
            f"{kind}, whose Section is none", f"a subclass of fedray.{base.__name__}.Section"
        )
    return section


def _find(room: str, kind: str, context: Any) -> type[KindSection] | None:
    """The section of a user's kind; None for a name that is nobody's."""
    entry = None if plugins.is_path(kind) else plugins.installed().get(kind)
    if not plugins.is_path(kind) and entry is None:
        return None
    folders: list[Path] = (context or {}).get("folders", [])
    try:
        user_class = plugins.load(entry) if entry is not None else plugins.find(kind, folders)
        return section_of(room, kind, user_class)
    except plugins.NoKind as e:
        raise _no_kind(e.got, e.expected) from None


def _names(section: Any) -> tuple[str, ...]:
    """The Literal kinds of a section of ours."""
    if not hasattr(section, "model_fields"):
        return ()
    return get_args(section.model_fields["kind"].annotation)
