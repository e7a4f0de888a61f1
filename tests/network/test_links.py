from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.network.links import Fixed, Trace, delivered_s, numbered, read_trace
from fedray.scenario.base import Refused
from fedray.scenario.links import FixedLink, TraceLink
from tests.helpers import sent


def trace(tmp_path, text, **more):
    (tmp_path / "up.trace").write_text(text)
    return Trace(TraceLink(kind="trace", path="up.trace", **more), "network.uplink.path", 0, tmp_path)


def test_a_file_that_holds_a_one_is_twelve_megabit_a_second(tmp_path):
    link = trace(tmp_path, "1\n", transmit_w=2.0)
    (seconds, joules), lost = sent(link, 0, -1, 1_500_000)
    assert seconds == pytest.approx(1.0)
    assert joules == pytest.approx(2.0)
    assert not lost


def test_a_packet_leaves_at_its_millisecond_and_the_file_loops(tmp_path):
    (tmp_path / "up.trace").write_text("2\n5\n5\n10\n")
    stamps = read_trace("up.trace", tmp_path, "key")
    assert delivered_s(stamps, 0.0, 1) == pytest.approx(0.002)
    assert delivered_s(stamps, 0.0, 3 * 1500) == pytest.approx(0.005)
    assert delivered_s(stamps, 0.0, 5 * 1500) == pytest.approx(0.012)
    assert delivered_s(stamps, 0.006, 1500) == pytest.approx(0.004)
    assert delivered_s(stamps, 0.026, 2 * 1500) == pytest.approx(0.006)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=50), st.integers(1, 10**6), st.floats(0, 100))
def test_more_bytes_never_take_less_time(steps, nbytes, start):
    stamps = np.cumsum([1, *steps])
    assert 0 <= delivered_s(stamps, start, nbytes) <= delivered_s(stamps, start, nbytes + 1500)


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), max_size=30))
def test_transfers_are_numbered_by_their_sender_and_receiver(pairs):
    sender, receiver = (np.array([pair[i] for pair in pairs], int) for i in (0, 1))
    assert numbered(sender, receiver).tolist() == [pairs[:i].count(pair) for i, pair in enumerate(pairs)]


@pytest.mark.parametrize("kind", ["fixed", "trace"])
def test_a_base_station_sends_with_forty_watts_and_a_device_with_a_fifth_of_one(tmp_path, kind):
    """46 dBm of TR 36.942, Table 4.6, and 23 dBm of TS 38.101-1, Table 6.2.1-1, where a scenario says nothing
    else."""
    (tmp_path / "a.trace").write_text("1\n")

    def joules(direction, **more):
        if kind == "fixed":
            return sent(Fixed(FixedLink(kind="fixed", rate_bps=12e6, **more), direction), 0, -1, 1_500_000)[
                0
            ][1]
        return sent(
            Trace(TraceLink(kind="trace", path="a.trace", **more), "key", 0, tmp_path, direction),
            0,
            -1,
            1_500_000,
        )[0][1]

    assert joules("downlink") == pytest.approx(10 ** (4.6 - 3), rel=0.01)
    assert joules("uplink") == joules("sidelink") == pytest.approx(10 ** (2.3 - 3), rel=0.01)
    assert joules("downlink", transmit_w=2.0) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "which is empty"),
        ("1\n5\n3\n", "3 after 5 in line 3"),
        ("1\nx\n", "'x' in line 2"),
        ("0\n0\n", "which ends at 0"),
        ("-1\n", "'-1' in line 1"),
    ],
)
def test_a_trace_that_is_none_is_refused_with_its_line(tmp_path, text, got):
    with pytest.raises(Refused, match=r"network\.uplink\.path") as refused:
        trace(tmp_path, text)
    assert got in refused.value.got


def test_clients_begin_at_places_of_their_own_where_that_is_asked_for():
    section = TraceLink(kind="trace", path="shipped:synthetic-walk.trace", spread=True)
    link = Trace(section, "key", 0, Path())
    times = {sent(link, client, -1, 200_000)[0][0] for client in range(8)}
    assert len(times) == 8
    assert sent(link, 3, -1, 200_000) == sent(Trace(section, "key", 0, Path()), 3, -1, 200_000)


@pytest.mark.parametrize("line", ["\u00b2", "9" * 20, "-1", "1.5"])
def test_a_trace_of_what_is_no_millisecond_is_refused_with_its_line(tmp_path, line):
    (tmp_path / "odd.trace").write_text(f"1\n{line}\n")
    with pytest.raises(Refused, match="in line 2 of"):
        read_trace("odd.trace", tmp_path, "network.uplink.path")
