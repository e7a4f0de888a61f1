"""What every section of a scenario shares."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from fedray.errors import UserError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
# of anything that is counted: more is a slip of the finger, and past what arrays can hold
MOST = 1_000_000_000
Count = Annotated[int, Field(ge=1, le=MOST)]


MOST_PATH_BYTES = 2000  # systems end at 4096 (PATH_MAX), with the folder that a path starts in


def _nameable(path: str) -> str:
    try:
        names = [name.encode() for name in path.split("/")]
    except UnicodeEncodeError:
        raise ValueError("a path of characters that UTF-8 has") from None
    if any(len(name) > 255 for name in names):
        raise ValueError("a path whose names have at most 255 bytes each")
    if len(b"/".join(names)) > MOST_PATH_BYTES:
        raise ValueError(f"a path of at most {MOST_PATH_BYTES} bytes")
    if "\0" in path:
        raise ValueError("a path without zero bytes")
    return path


IS_PATH = object()  # marks a field as naming a file, in its annotation
FilePath = Annotated[str, AfterValidator(_nameable), IS_PATH]
MOST_NAME = 64  # characters of a name
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Section(BaseModel):
    """A section: no unknown keys, no silent conversions, never changed after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())
    cites: ClassVar[tuple[str, ...]] = ()  # keys of BibTeX entries, of whatever the section is used with
    # checks what is in the file at its key `path`, as `module:function` of the section, the scenario's
    # folder, the key and how many clients there are; none: nothing to check
    verify_inputs: ClassVar[str | None] = None

    def cited(self) -> Iterator[str]:
        """Keys of BibTeX entries of exactly the methods that are used."""
        yield from self.cites

    def conflicts(self, scenario: Any) -> Iterator["Refused"]:
        """What the section cannot go with in a scenario. A key that begins with a dot is the section's own:
        `Refused(".norm", 2, "at most 1")`."""
        return iter(())

    def sections(self, key: str = "") -> Iterator[tuple[str, "Section"]]:
        """This section and all within it, each with its dotted key below this one's."""
        yield key, self
        for name in type(self).model_fields:
            yield from _sections(getattr(self, name), f"{key}.{name}" if key else name)


def file_paths(section: Section) -> Iterator[tuple[str, str]]:
    """What a section's own fields of FilePath name, each with its dotted key below the section's."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if value is None or not _names_files((field.annotation, *field.metadata)):
            continue
        if isinstance(value, list):
            yield from ((f"{name}.{i}", path) for i, path in enumerate(value))
        else:
            yield name, value


def _names_files(annotation: tuple[Any, ...]) -> bool:
    """Whether a field of such an annotation, in its parts, names files."""
    return any(part is IS_PATH or _names_files(get_args(part)) for part in annotation)


def _sections(value: Any, key: str) -> Iterator[tuple[str, Section]]:
    if isinstance(value, Section):
        yield from value.sections(key)
    elif isinstance(value, list | tuple):
        for i, one in enumerate(value):
            yield from _sections(one, f"{key}.{i}")
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _sections(one, f"{key}.{name}")


class Refused(UserError):
    """Something a scenario asks for that cannot be had: raised by any room, shown with the scenario's file
    and line."""

    def __init__(self, key: str, got: object, expected: str) -> None:
        super().__init__(f"{key}: got {got}, expected {expected}")
        self.key = key
        self.got = str(got)
        self.expected = expected

    def within(self, key: str) -> "Refused":
        """The same with a whole key, where it begins with a dot: a section knows no more than its own."""
        return Refused(f"{key}{self.key}", self.got, self.expected) if self.key.startswith(".") else self

    def __reduce__(self):  # exceptions with arguments of their own do not pickle without this
        return Refused, (self.key, self.got, self.expected)
