"""docs/scenario.md, which tools/make_reference.py writes from the sections."""

import re
import subprocess
import sys
from pathlib import Path

from fedray.scenario import Scenario
from tests.scenario.test_fields import choices, sections

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "scenario.md").read_text(encoding="utf-8")


def test_the_reference_is_what_its_tool_writes():
    tool = [sys.executable, "tools/make_reference.py"]
    written = subprocess.run(tool, cwd=ROOT, check=True, capture_output=True, encoding="utf-8").stdout
    assert written == PAGE, "run: python tools/make_reference.py > docs/scenario.md"


def test_every_link_of_the_reference_leads_to_a_heading_of_its_own():
    headings = re.findall(r"^#+ (.*)$", PAGE, re.M)
    anchors = [re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", text).lower()) for text in headings]
    assert len(set(anchors)) == len(anchors)
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= set(anchors)


def test_the_reference_has_every_key_and_every_kind_of_a_scenario():
    for section in sections(Scenario):
        for key, field in section.model_fields.items():
            if key == "kind":
                assert all(re.search(rf"^#+ .*: .*\b{kind}\b", PAGE, re.M) for kind in choices(field))
            else:
                assert f"| `{key}` |" in PAGE, f"{section.__name__}.{key}"
