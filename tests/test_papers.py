"""docs/papers.md, which tools/make_papers.py writes from the scenarios' own `shows`."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(ROOT / "tools" / "make_papers.py"))


@pytest.fixture(scope="module")
def shown(tool):
    return tool["shown_by"](tool["shipped"].scenarios())


def test_the_page_is_what_its_tool_writes(tool):
    page = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    assert "\n".join(tool["page"]()) + "\n" == page, "run: python tools/make_papers.py > docs/papers.md"


def test_scenarios_show_only_claims_that_the_papers_make(tool, shown):
    assert shown.keys() <= tool["claims"]().keys()


def test_every_claim_has_a_scenario_or_says_why_it_has_none(tool, shown):
    for name, claim in tool["claims"]().items():
        assert (name in shown) != ("missing" in claim), name
