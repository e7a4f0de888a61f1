"""Each tool can be started."""

import importlib
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent.parent / "tools"
WITHOUT = {  # by the package that an environment for tests does not have
    "make_emoji": "resvg-py",  # which it installs in an environment of its own
    "wheel_readme": "hatchling",  # which is there while the wheel is built
}
TESTED = sorted({file.stem for file in TOOLS.glob("*.py")} - WITHOUT.keys())


@pytest.mark.parametrize("name", TESTED)
def test_a_tool_imports_what_it_uses(name, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))  # where a script finds its neighbours
    before = set(sys.modules)
    try:
        assert Path(importlib.import_module(name).__file__).parent == TOOLS
    finally:  # their names are short: no other test shall find them
        for own in (file.stem for file in TOOLS.glob("*.py")):
            if own not in before:
                sys.modules.pop(own, None)


@pytest.mark.parametrize("name", WITHOUT)
def test_a_tool_that_is_left_out_is_there(name):
    assert (TOOLS / f"{name}.py").is_file()
