import re
import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from fedray import shipped
from fedray.cli import app

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    {c.strip() for c in re.findall(r"`(?:uv run )?(fedray [^`]+)`", README)}
    | set(re.findall(r"^uv run (fedray .+?)(?:  |$)", README, re.M))
)


def test_the_scenario_it_explains_is_the_one_that_ships():
    block = re.search(r"```yaml\n(.+?)```", README, re.S)
    assert block is not None
    assert YAML(typ="safe").load(block[1]) == YAML(typ="safe").load(shipped.scenarios()["quickstart"].read_text())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_verb_and_option_it_names_exists(command):
    words = shlex.split(command)[1:]
    if words == ["--help"]:
        return
    verbs = get_command(app).commands
    assert words[0] in verbs
    options = {o for p in verbs[words[0]].params for o in p.opts}
    assert {w for w in words if w.startswith("--")} <= options


def test_its_tree_names_files_and_folders_that_are_there():
    root = Path(__file__).parent.parent
    tree = re.search(r"```\nfedray/\n(.+?)```", README, re.S)
    assert tree is not None
    for name in re.findall(r"^  (\w[\w./]*)", tree[1], re.M):
        assert (root / "fedray" / name).exists(), name
