import doctest
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.network import devices, links
from fedray.network.clock import time_round
from fedray.network.fixed import FixedRateLink, TraceDrivenLink, delivery_time_s, read_trace
from fedray.network.links import Link, LinkContext, RoundStart, TransferCosts, link_client, pair_numbers
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.scenario.base import Refused
from fedray.scenario.device import FlopsDevice
from fedray.scenario.links import FixedLink, LinkSection, TraceLink
from fedray.scenario.network import Network
from fedray.topologies.parallel import parallel
from tests.helpers import sent


def trace(tmp_path, text, **more):
    (tmp_path / "up.trace").write_text(text)
    return TraceDrivenLink(TraceLink(kind="trace", path="up.trace", **more), LinkContext(folder=tmp_path))


def test_a_file_that_holds_a_one_is_twelve_megabit_a_second(tmp_path):
    link = trace(tmp_path, "1\n", transmit_w=2.0)
    (seconds, joules), lost = sent(link, 0, -1, 1_500_000)
    assert seconds == pytest.approx(1.0)
    assert joules == pytest.approx(2.0)
    assert not lost


def test_a_packet_leaves_at_its_millisecond_and_the_file_loops(tmp_path):
    (tmp_path / "up.trace").write_text("2\n5\n5\n10\n")
    stamps = read_trace("up.trace", tmp_path, "key")
    assert delivery_time_s(stamps, 0.0, 1) == pytest.approx(0.002)
    assert delivery_time_s(stamps, 0.0, 3 * 1500) == pytest.approx(0.005)
    assert delivery_time_s(stamps, 0.0, 5 * 1500) == pytest.approx(0.012)
    assert delivery_time_s(stamps, 0.006, 1500) == pytest.approx(0.004)
    assert delivery_time_s(stamps, 0.026, 2 * 1500) == pytest.approx(0.006)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=50), st.integers(1, 10**6), st.floats(0, 100))
def test_more_bytes_never_take_less_time(steps, nbytes, start):
    stamps = np.cumsum([1, *steps])
    assert 0 <= delivery_time_s(stamps, start, nbytes) <= delivery_time_s(stamps, start, nbytes + 1500)


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), max_size=30))
def test_transfers_are_numbered_by_their_sender_and_receiver(pairs):
    sender, receiver = (np.array([pair[i] for pair in pairs], int) for i in (0, 1))
    assert pair_numbers(sender, receiver).tolist() == [pairs[:i].count(pair) for i, pair in enumerate(pairs)]


@pytest.mark.parametrize("kind", ["fixed", "trace"])
def test_a_base_station_sends_with_forty_watts_and_a_device_with_a_fifth_of_one(tmp_path, kind):
    """46 dBm of TR 36.942, Table 4.6, and 23 dBm of TS 38.101-1, Table 6.2.1-1, where a scenario says nothing
    else."""
    (tmp_path / "a.trace").write_text("1\n")

    def joules(direction, **more):
        context = LinkContext(direction, folder=tmp_path)
        if kind == "fixed":
            link = FixedRateLink(FixedLink(kind="fixed", rate_bps=12e6, **more), context)
        else:
            link = TraceDrivenLink(TraceLink(kind="trace", path="a.trace", **more), context)
        return sent(link, 0, -1, 1_500_000)[0][1]

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
    link = TraceDrivenLink(section, LinkContext())
    times = {sent(link, client, -1, 200_000)[0][0] for client in range(8)}
    assert len(times) == 8
    assert sent(link, 3, -1, 200_000) == sent(TraceDrivenLink(section, LinkContext()), 3, -1, 200_000)


@pytest.mark.parametrize("line", ["\u00b2", "9" * 20, "-1", "1.5"])
def test_a_trace_of_what_is_no_millisecond_is_refused_with_its_line(tmp_path, line):
    (tmp_path / "odd.trace").write_text(f"1\n{line}\n")
    with pytest.raises(Refused, match="in line 2 of"):
        read_trace("odd.trace", tmp_path, "network.uplink.path")


class GainTable(Link):
    """A user's own kind: Shannon's rate at each client's gain, over the whole band, for a watt."""

    def rates_bps(self, start, sender, receiver):
        gains_db = np.array(self.section.gains_db)[link_client(sender, receiver)]
        return 1e6 * np.log2(1 + 10 ** (gains_db / 10))

    def transfers(self, start, requests):
        time_s = 8 * requests.nbytes / self.rates_bps(start, requests.sender, requests.receiver)
        return TransferCosts(time_s, 1.0 * time_s, np.zeros(len(time_s), bool))


class GainSection(LinkSection):
    kind: Literal["gains"] = "gains"
    gains_db: list[float]

    implementation = f"{__name__}:GainTable"


def test_a_link_of_one_s_own_needs_one_class():
    fixed = FixedLink(kind="fixed", rate_bps=8e6)
    device = FlopsDevice(kind="flops", peak_flops=1e9, active_w=1.0)
    section = Network(uplink=fixed, downlink=fixed, sidelink=fixed, device=device, server=device)
    section = section.model_copy(update={"uplink": GainSection(gains_db=[0.0, 10 * np.log10(3)])})
    radio = Radio(section, 2)
    work = Work(lambda client, images: 1e9, lambda direction, client: 10**6, lambda updates: 0.0)
    events = {e.id: e for e in time_round(parallel(1, [0, 1], False), work, radio, 0.0)}
    assert [events[f"up-{k}"].t1_s - events[f"up-{k}"].t0_s for k in (0, 1)] == pytest.approx([8.0, 4.0])
    assert events["up-1"].energy_j == pytest.approx(4.0)
    finish_s = radio.finish_times_s(RoundStart(1, 0.0), work, np.arange(2))(2)
    assert finish_s == pytest.approx([1 + 1 + 8, 1 + 1 + 4])


@pytest.mark.parametrize("module", [links, devices])
def test_the_example_of_a_base_class_works(module):
    assert doctest.testmod(module).attempted
    assert not doctest.testmod(module).failed
