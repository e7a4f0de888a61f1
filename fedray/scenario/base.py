"""What every section of a scenario shares."""

from typing import Annotated

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


FilePath = Annotated[str, AfterValidator(_nameable)]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Section(BaseModel):
    """A section: no unknown keys, no silent conversions, never changed after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class Refused(UserError):
    """Something a scenario asks for that cannot be had: raised by any room, shown with the scenario's file
    and line."""

    def __init__(self, key: str, got: object, expected: str) -> None:
        super().__init__(f"{key}: got {got}, expected {expected}")
        self.key, self.got, self.expected = key, str(got), expected

    def __reduce__(self):  # exceptions with arguments of their own do not pickle without this
        return Refused, (self.key, self.got, self.expected)
