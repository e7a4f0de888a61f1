"""The report's pictures."""

import pytest

from fedray.report import charts, recorded
from tests.report.made import made_up


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return recorded.read(
        [made_up(tmp_path_factory.mktemp("charts") / "run", [2.0 - 0.1 * t for t in range(9)])]
    )[0]


@pytest.mark.parametrize(("runs", "numbers", "upright"), [(2, 6, 0), (5, 15, 15), (20, 0, 0)])
def test_numbers_stand_above_bars_upright_where_these_are_narrow_and_not_where_nothing_fits(
    run, runs, numbers, upright
):
    picture = charts.to_reach([run] * runs, [1.85, 1.65, 1.45], "seconds")
    assert picture.count("font-size: 7px") + picture.count("font-size: 7.5px") == numbers
    assert picture.count("rotate(-90") == upright
