"""The scenario's JSON Schema, and the comment by which an editor finds it."""

import re
from typing import Any

from fedray.scenario.scenario import Scenario

FILE = "fedray.schema.json"
MODELINE = re.compile(r"^# yaml-language-server: \$schema=\S+$", re.M)


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a scenario, from the same models that load one."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Scenario.model_json_schema(),
        "title": "fedray scenario",
    }


def point_at(text: str, schema: str) -> str:
    """A scenario's text with its modeline naming another schema file."""
    return MODELINE.sub(f"# yaml-language-server: $schema={schema}", text, count=1)
