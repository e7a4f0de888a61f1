"""README.md and docs/ are true: what they tell a reader to type runs, what they name exists."""

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML
from typer.main import get_command

import fedray
from fedray import shipped
from fedray.cli import app
from fedray.scenario.schema import schema
from tests.helpers import CommandLine

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<info>[^\n]+)\n(?P<text>.*?)^```$", re.M | re.S
)
TITLE = re.compile(r'title="([^"]+)"')
OWN_KIND = re.compile(r"'my_\w+:\w+'")

# Why a block is not run, and how many of them there may be.
NOT_RUN = {
    "installs packages": 3,
    "needs more than one machine": 3,
    "needs a GPU": 2,
    "needs an account of a hub": 2,  # tests/publishing has a hub of its own
    "takes minutes": 1,
    "answers until it is interrupted": 3,
    "needs weights from the hub": 1,
}
# What is added to a command so that it takes seconds, by its start; the longest start that fits counts.
ONE_STEP = "--set training.rounds=1 --set training.local_steps=1 --set evaluation={}"
SERIAL = "--set 'runtime={executor: serial}'"
QUICK = {
    "fedray run --resume": "",
    "fedray run quickstart": f"{ONE_STEP} {SERIAL}",
    "fedray run photos.yaml": f"{ONE_STEP} {SERIAL}",
    "fedray run shapes.yaml": f"{ONE_STEP} {SERIAL}",
    "fedray run mine.yaml": f"--set training.rounds=1 {SERIAL}",
    "fedray run kinds.yaml": f"--set training.rounds=1 {SERIAL}",
    "fedray run edge.yaml": "--set training.rounds=2",
    "fedray run gan.yaml": f"{ONE_STEP} --set evaluation.quality.images=16 {SERIAL}",
    "fedray run at-home.yaml": f"--set training.rounds=1 {SERIAL}",
    "fedray run personal.yaml": f"--set training.rounds=1 {SERIAL}",
    "fedray run schedule.yaml": "--set training.rounds=6 --set training.batch_size=2 "
    f"--set evaluation.every=1 {SERIAL}",
    "fedray run watched.yaml": "--set training.rounds=1 --set runtime.executor=serial",
    "fedray run cell.yaml": f"--set training.rounds=1 {SERIAL}",
    "fedray run split.yaml": f"{ONE_STEP} {SERIAL}",
    "fedray run ranks.yaml": f"{ONE_STEP} {SERIAL} --set sweep=null",  # tests/test_sweep.py has variants
    "fedray generate": "--steps 1",
}


@cache
def whole_schema():
    return schema()


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    title: str | None
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in FENCE.finditer(text):
        language, _, options = fence["info"].partition(" ")
        title = TITLE.search(options)
        line = text.count("\n", 0, fence.start("info")) + 1
        found.append(Block(page, line, language, title and title[1], fence["text"], fence["reason"]))
    return found


BLOCKS = {page: blocks_of(page) for page in PAGES}
ALL = [block for blocks in BLOCKS.values() for block in blocks]
CODE = sorted(
    {code for page in PAGES for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))}
)


def commands(block: Block) -> list[str]:
    """A bash block's commands without their comments; a backslash joins two lines."""
    lines = block.text.replace("\\\n", " ").splitlines()
    found = (re.sub(r"(^|\s)#\s.*", "", line).strip() for line in lines)
    return [line.removeprefix("uv run ") for line in found if line]


def quick(command: str) -> list[str]:
    """The command's arguments, with what makes it quick."""
    start = max((start for start in QUICK if command.startswith(start)), key=len, default=None)
    assert start or not command.startswith("fedray run"), f"QUICK does not say how to shorten: {command}"
    return shlex.split(f"{command} {QUICK[start] if start else ''}")[1:]


def follow(page: Path, fedray: CommandLine) -> dict[str, str]:
    """Goes through a page's blocks in their order in one folder: a block with a title is written to that
    file, any other of Python or commands runs.

    Gives what each command printed.
    """
    printed = {}
    variables: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCKS[page]:
        if block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
        if block.title or block.reason:
            continue
        if block.language == "python":
            exec(compile("\n" * block.line + block.text, block.place, "exec"), variables)
        for command in commands(block) if block.language == "bash" else ():
            if command.startswith("fedray "):
                code, printed[command], err = fedray(*quick(command))
                assert code == 0, (block.place, command, printed[command], err)
            else:
                subprocess.run(["bash", "-euc", command], check=True, capture_output=True)
    return printed


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_tells_its_reader_to_type_runs(page, fedray):
    follow(page, fedray)


def test_the_readme_s_commands_run_and_print_what_it_shows(fedray):
    printed = follow(PAGES[0], fedray)["fedray run quickstart"].splitlines()
    shown = next(block.text for block in BLOCKS[PAGES[0]] if block.language == "text").splitlines()

    def shape(line: str) -> str:
        return re.sub(r"[0-9a-f]{12}|\d+", "0", line)

    assert [shape(line) for line in printed[-3:]] == [shape(line) for line in shown[-3:]]


def test_the_command_beside_each_wish_of_other_frameworks_users_runs(fedray):
    commands = re.findall(r"\| `fedray ([^`]*)` \|", (ROOT / "docs" / "wishes.md").read_text())
    assert len(commands) == 13
    for command in commands:
        code, _, err = fedray(*shlex.split(command))
        assert code == 0, (command, err)


def test_blocks_that_are_not_run_are_few_and_say_why():
    reasons = [block.reason for block in ALL if block.reason]
    assert {reason for reason in reasons} <= NOT_RUN.keys()
    assert all(reasons.count(reason) <= most for reason, most in NOT_RUN.items())


def test_no_block_of_a_page_escapes_these_tests():
    for page, blocks in BLOCKS.items():
        fences = re.findall(r"^\s*```", page.read_text(encoding="utf-8"), re.M)
        assert len(fences) == 2 * len(blocks), page


def test_every_block_names_a_language_that_this_test_knows():
    known = {"bash", "python", "yaml", "toml", "json", "text", "xml", "bibtex"}
    assert [(block.place, block.language) for block in ALL if block.language not in known] == []


def test_the_quickstart_page_shows_the_scenario_that_ships():
    page = ROOT / "docs" / "tutorials" / "quickstart.md"
    (shown,) = (
        b.text for b in BLOCKS[page] if b.language == "yaml" and b.text.startswith("name: quickstart")
    )
    assert YAML(typ="safe").load(shown) == YAML(typ="safe").load(
        shipped.scenarios()["quickstart"].read_text()
    )


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.language == "yaml"], ids=lambda block: block.place
)
def test_a_scenario_or_a_part_of_one_on_a_page_fits_the_schema(block):
    whole = whole_schema()
    for key, value in YAML(typ="safe").load(block.text).items():
        part = {"$defs": whole["$defs"], **whole["properties"][key]}
        errors = [error.message for error in Draft202012Validator(part).iter_errors(value)]
        assert errors == [], (block.place, key)


@pytest.mark.parametrize("code", [code for code in CODE if re.match(r"(uv run )?fedray [a-z-]", code)])
def test_every_verb_and_option_a_page_names_exists(code):
    words = shlex.split(code.removeprefix("uv run "))[1:]
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--install-completion", "--version")
        return
    verbs = get_command(app).commands
    assert words[0] in verbs
    options = {option for parameter in verbs[words[0]].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize(
    "path",
    [
        code
        for code in CODE
        if re.fullmatch(r"(fedray|tools|tests|scenarios|examples|docs|\.ci)/[\w./-]*", code)
    ],
)
def test_every_file_and_folder_a_page_names_is_there(path):
    assert (ROOT / path).exists()


def test_a_scenario_with_ones_own_kinds_is_run_or_checked_by_its_page():
    """The schema takes any options of theirs, so that nothing else looks at these."""
    for block in ALL:
        if block.language == "yaml" and OWN_KIND.search(str(YAML(typ="safe").load(block.text))):
            typed = [command for b in BLOCKS[block.page] if b.language == "bash" for command in commands(b)]
            assert any(f"fedray run {block.title}" in command for command in typed), block.place


def test_every_public_name_of_the_package_stands_in_the_python_reference():
    page = (ROOT / "docs" / "python-reference.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^(?:::: |`)fedray\.(\w+)", page, re.M))
    assert described == set(fedray.__all__)


def test_the_drawing_of_the_floors_is_that_of_the_import_rules():
    """Otherwise: python tools/draw_floors.py > docs/floors.svg"""
    command = [sys.executable, str(ROOT / "tools" / "draw_floors.py")]
    drawn = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert (ROOT / "docs" / "floors.svg").read_text(encoding="utf-8") == drawn


WALK = re.compile(r"^\| (\d+) \| .* \| (`.*`) \| (`.*`) \|$", re.M)


@pytest.mark.parametrize(
    "row",
    WALK.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")),
    ids=lambda row: row[0],
)
def test_each_step_of_the_walk_of_a_round_is_where_the_page_says(row):
    _, names, paths = (re.findall(r"`([^`]+)`", column) for column in row)
    assert names
    assert paths
    found = [ROOT / path for path in paths]
    files = [file for path in found for file in (path.rglob("*.py") if path.is_dir() else [path])]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert [name for name in names if not re.search(rf"(def|class) {name}\b", code)] == []


def test_every_aggregation_rule_stands_on_the_page_of_algorithms():
    page = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    whole = whole_schema()
    named = [one["$ref"] for one in whole["properties"]["aggregation"]["oneOf"] if "$ref" in one]
    kinds = [whole["$defs"][ref.rpartition("/")[2]]["properties"]["kind"]["const"] for ref in named]
    assert "fedavg" in kinds
    assert [kind for kind in kinds if f"`{kind}`" not in page] == []


def test_the_readme_fits_a_screen_or_two():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 90


def test_the_site_is_whole_and_asks_no_other_host_for_anything(tmp_path, monkeypatch):
    site = pytest.importorskip("mkdocs.commands.build")
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    site.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES) - 1
    asked = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//""")
    assert [str(page) for page in pages if asked.search(page.read_text(encoding="utf-8"))] == []


def test_every_link_of_the_readme_leads_to_a_file():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[0].read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []
