"""The JSON files of a base model's folder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedray.learners.weights_file import refuse_pointer
from fedray.scenario.base import Refused

CODE = ("auto_map", "trust_remote_code", "custom_pipelines")

Refuse = Callable[[object, str], Refused]


def json_object(file: Path, refuse: Refuse) -> dict[str, Any]:
    """What a file holds. Raises what `refuse` makes of one that is missing, or no JSON object."""
    refuse_pointer(file, refuse)
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise refuse(f"a base model without {file}", "a whole one") from None
    except (OSError, ValueError, RecursionError) as e:
        raise refuse(f"{file}, which is no JSON ({str(e).splitlines()[0][:80]})", "a JSON object") from None
    if not isinstance(value, dict):
        raise refuse(f"{file}, which is no JSON object", "one")
    return value


def refuse_foreign(file: Path, config: Mapping[str, Any], refuse: Refuse) -> None:
    """Raises what `refuse` makes of a configuration that brings code, or weights that are quantized."""
    refuse_foreign_entries(str(file), config, refuse)


def refuse_foreign_entries(place: str, config: Mapping[str, Any], refuse: Refuse) -> None:
    """The same of a configuration that stands in a `place` which is no file here."""
    for entry in CODE:
        if config.get(entry):
            raise refuse(f"{entry} in {place}", "a base model that brings no code of its own")
    if config.get("quantization_config"):
        raise refuse(f"quantization_config in {place}", "weights that are not quantized")
