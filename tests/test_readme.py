import re
import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from fedray import shipped
from fedray.cli import app

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PAGE = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text(encoding="utf-8")
COMMANDS = sorted({c.strip() for c in re.findall(r"`(?:uv run )?(fedray [^`]+)`", README + PAGE)})
# A block's lines as a user types them, without what is said about them.
TYPED = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```sh\n(.+?)```", README, re.S)
    for line in block.splitlines()
]
# tests/executors/test_cluster.py has the quickstart on Ray.
SHORT = ["training.rounds=1", "training.local_steps=1", "evaluation={}", "runtime={executor: serial}"]


def test_the_scenario_it_explains_is_the_one_that_ships():
    block = re.search(r"```yaml\n(.+?)```", README, re.S)
    assert block is not None
    assert YAML(typ="safe").load(block[1]) == YAML(typ="safe").load(
        shipped.scenarios()["quickstart"].read_text()
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_verb_and_option_it_names_exists(command):
    words = shlex.split(command)[1:]
    if words[0].startswith("--"):
        assert words[0] in ("--help", "--install-completion", "--version")
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


def test_every_command_a_user_is_told_to_type_runs(fedray):
    """In their order, in an empty folder; trainings are cut to one step."""
    others = []
    for typed in TYPED:
        words = shlex.split(typed.removeprefix("uv run "))
        if words[0] != "fedray":
            others.append(typed)
            continue
        arguments = words[1:]
        if arguments == ["run", "huang2023-tiny"]:
            arguments += ["--set", "sweep=null"]  # tests/test_sweep.py has variants
        if arguments[0] == "run" and "--resume" not in arguments:
            arguments += [word for setting in SHORT for word in ("--set", setting)]
        code, out, err = fedray(*arguments)
        assert code == 0, (typed, out, err)
        if arguments[:2] == ["run", "quickstart"]:
            assert out.splitlines()[-1].startswith("next: fedray generate runs/quickstart ")
    # These have tests of their own: this very run and tests/test_jobs.py.
    assert [o.split()[:3] for o in others] == [
        ["uv", "run", "pytest"],
        ["ray", "get-auth-token", "--generate"],
        ["RAY_AUTH_MODE=token", "ray", "start"],
        ["RAY_AUTH_MODE=token", "ray", "job"],
    ]
    assert Path("bags.png").exists()
    assert Path("runs/quickstart/report.html").exists()
    assert Path("runs/huang2023-tiny/report.html").exists()
