# ruff: noqa: E501  a table, a line a case

import numpy as np
import pytest

from fedray.checks import check
from fedray.network.geometry import Geometry
from fedray.network.links import RoundStart
from fedray.network.radio import Radio
from fedray.scenario.base import Refused
from fedray.scenario.cell import Cell
from fedray.scenario.load import ScenarioError, load
from fedray.scenario.network import Network
from tests.helpers import garments

SUMO = """<?xml version="1.0" encoding="UTF-8"?>
<fcd-export>
    <timestep time="0.00">
        <vehicle id="a" x="100.00" y="20.00" angle="90" type="car" speed="10" pos="5" lane="e_0" slope="0"/>
        <vehicle id="b" x="300.00" y="20.00" angle="90" type="car" speed="0" pos="5" lane="e_0" slope="0"/>
        <person id="p" x="100.00" y="50.00" angle="0" speed="1" pos="0" edge="e" slope="0"/>
    </timestep>
    <timestep time="1.00">
        <vehicle id="a" x="110.00" y="20.00"/>
        <vehicle id="late" x="0.00" y="20.00"/>
        <person id="p" x="100.00" y="51.00"/>
    </timestep>
    <timestep time="2.00">
        <vehicle id="a" x="130.00" y="20.00"/>
        <vehicle id="b" x="300.00" y="20.00"/>
        <vehicle id="late" x="10.00" y="20.00"/>
        <person id="p" x="101.00" y="51.00"/>
    </timestep>
</fcd-export>
"""
NS2 = """# two nodes, made by hand
set opt(nn) 2
$node_(0) set X_ 100.0
$node_(0) set Y_ 20.0
$node_(0) set Z_ 0.0
$god_ set-dist 0 1 2
$node_(1) set X_ -50.0
$node_(1) set Y_ 0.0
$ns_ at 4.0 "$node_(0) setdest 130.0 60.0 5.0"
$ns_ at 1.0 "$node_(0) setdest 110.0 20.0 5.0"
$ns_ at 2.0 "$node_(1) setdest -50.0 90.0 10.0" ;# turns before it is there
$ns_ at 5.0 "$node_(1) setdest -90.0 30.0 0.0"
"""


def cell(folder, kind, text, **more):
    path = {"sumo": "cars.xml", "ns2": "cars.tcl"}[kind]
    (folder / path).write_text(text)
    return Cell.model_validate({"placement": {"kind": kind, "path": path} | more})


def geometry(folder, kind, text, clients, **more):
    return Geometry(cell(folder, kind, text, **more), clients, 0, folder)


def test_vehicles_and_persons_of_sumo_go_straight_from_step_to_step_and_begin_anew(tmp_path):
    one = geometry(tmp_path, "sumo", SUMO, 2, server_m=[100.0, 0.0])
    for time_s, a, p in (
        (0, (0, 20), (0, 50)),
        (0.5, (5, 20), (0, 50.5)),
        (1.75, (25, 20), (0.75, 51)),
        (2.5, (5, 20), (0, 50.5)),
    ):
        assert one.at(time_s) == pytest.approx(np.array([a, p]))
    assert one.at(0.5) == pytest.approx(np.array([[5, 20], [0, 50.5]]))  # an earlier second again
    assert one.at(0.5) is one.at(0.5)


def test_vehicles_are_those_named_in_the_seconds_asked_for(tmp_path):
    one = geometry(tmp_path, "sumo", SUMO, 2, vehicles=["late", "a"], from_s=1.0)
    assert one.at(0.0) == pytest.approx(np.array([[0, 20], [110, 20]]))
    assert one.at(0.5) == pytest.approx(np.array([[5, 20], [120, 20]]))
    assert geometry(tmp_path, "sumo", SUMO, 3, until_s=0.5).at(9.0)[1].tolist() == [300, 20]


def test_nodes_of_ns2_set_out_turn_and_stay(tmp_path):
    """Node 0 rests from second 3 to 4, and is at (130, 60) after 44.7 m. Node 1 has gone 30 m at second 5."""
    one = geometry(tmp_path, "ns2", NS2, 2)
    for time_s, first, second in (
        (0.0, (100, 20), (-50, 0)),
        (2.0, (105, 20), (-50, 0)),
        (3.5, (110, 20), (-50, 15)),
        (4.0 + np.hypot(20, 40) / 10, (120, 40), (-50, 30)),
        (1000.0, (130, 60), (-50, 30)),
    ):
        assert one.at(time_s) == pytest.approx(np.array([first, second]))


def test_a_radio_link_follows_who_moves_as_a_file_says(tmp_path):
    """A device on its way from 100 m to 200 m loses 10 n log10 of the distances' ratio, and comes back at the file's end."""
    steps = "".join(
        f'<timestep time="{t}"><vehicle id="a" x="{100 + t}" y="0"/></timestep>' for t in range(101)
    )
    link = {
        "kind": "log_distance",
        "bandwidth_hz": 1e6,
        "exponent": 3.0,
        "shadowing_db": 0.0,
        "fading": "none",
    }
    device = {"kind": "flops", "peak_flops": 1e9, "active_w": 1.0}
    section = Network(
        uplink=link,
        downlink=link,
        sidelink=link,
        device=device,
        server=device,
        cell=cell(tmp_path, "sumo", f"<fcd-export>{steps}</fcd-export>", least_m=100.0),
    )
    uplink = Radio(section, 1, folder=tmp_path).links["uplink"]
    (near, far, again) = (
        float(uplink.mean_snr(RoundStart(1, t), np.array([0]), np.array([-1]))[0][0])
        for t in (0.0, 60.0, 100.0)
    )
    heights = 8.5  # of the base station above a device
    expected = 30 * np.log10(np.hypot(160, heights) / np.hypot(100, heights))
    assert 10 * np.log10(near / far) == pytest.approx(expected)
    assert near == again


def step(time_s, *vehicles):
    inner = "\n".join(f'<vehicle id="{name}" x="{x}" y="{y}"/>' for name, x, y in vehicles)
    return f'<timestep time="{time_s}">\n{inner}\n</timestep>\n'


BAD_SUMO = {
    "cut off": (SUMO[:300], {}, "what is no XML (no element found) in line 6 of 'cars.xml'"),
    "a document type": ('<!DOCTYPE x [<!ENTITY a "&b;">]>\n' + "<fcd-export/>", {}, "a document type in line 1 of 'cars.xml'"),
    "an encoding of nobody": ('<?xml version="1.0" encoding="nobody"?><fcd-export/>', {}, "what is no XML ("),
    "something else": ("<routes></routes>", {}, "no time step in 'cars.xml'"),
    "a vehicle that leaves": (SUMO, {"vehicles": ["a", "b"]}, "a gap: no 'b' in the time step 1 in line 8 of 'cars.xml', expected it in each from from_s until until_s"),
    "too few that stay": (SUMO, {"clients": 3}, "2 vehicles that are in every time step ('late' is not at 0 s, the time step) in line 3 of 'cars.xml', expected 3"),
    "too few, for one leaves": (step(0, ("a", 90, 9), ("b", 90, 9)) + step(1, ("a", 90, 9)), {"wrap": True}, "1 vehicles that are in every time step ('b' is not at 1 s, the time step) in line 6 of"),
    "nobody at first": (step(0) + step(1, ("a", 90, 9)), {"clients": 1, "wrap": True}, "0 vehicles that are in every time step ('a' is not at 0 s, the time step) in line 2 of"),
    "a step that is missing": ("".join(step(t, ("a", 90, 9)) for t in (0, 1, 3)), {"clients": 1, "wrap": True}, "a gap: the time 3 after 1 in line 8 of 'cars.xml', expected a time step every 1 s"),
    "times that go back": ("".join(step(t, ("a", 90, 9)) for t in (1, 0)), {"clients": 1, "wrap": True}, "the time 0 after 1 in line 5 of 'cars.xml', expected seconds that rise"),
    "a time of day": (step("00:00:01"), {"wrap": True}, "the time '00:00:01' in line 2 of 'cars.xml', expected a number"),
    "no number": (step(0, ("a", "nan", 9)), {"wrap": True}, "x of 'a': 'nan' in line 3 of 'cars.xml', expected a number"),
    "twice in a step": (step(0, ("a", 90, 9), ("a", 90, 9)), {"wrap": True}, "'a' for a second time in a time step in line 4"),
    "over the server": ("".join(step(t, ("a", x, 9)) for t, x in ((0, -90), (1, 90))), {"clients": 1, "wrap": True}, "'a' 9 m from the server in line 3 of 'cars.xml', expected at least least_m, 10"),
}  # fmt: skip
BAD_NS2 = {
    "a variable": ("$node_(0) set X_ $x", {}, "X_ of $node_(0): '$x' in line 1 of 'cars.tcl', expected a number"),
    "a loop": (NS2 + '$ns_ at 2.0 "$node_($i) setdest 1 2 3"', {}, "setdest 1 2 3\"' in line 13 of 'cars.tcl', expected numbers"),
    "no place at first": ('$ns_ at 2.0 "$node_(0) setdest 1 2 3"', {}, "no X_ of $node_(0) in line 1 of 'cars.tcl'"),
    "a node too few": (NS2, {"clients": 3}, "no X_ of $node_(2) in 'cars.tcl'"),
    "backwards": (NS2 + '$ns_ at 7.0 "$node_(0) setdest 1 2 -3"', {}, "the second 7 and the speed -3 in line 13"),
    "nothing": ("set opt(x) 1", {}, "no node in 'cars.tcl'"),
    "too near": (NS2 + '$ns_ at 99.0 "$node_(0) setdest 0 0 3"', {}, "$node_(0) 0 m from the server in line 13"),
}  # fmt: skip
BAD = {
    f"{kind}: {what}": (kind, *case)
    for kind, cases in (("sumo", BAD_SUMO), ("ns2", BAD_NS2))
    for what, case in cases.items()
}


@pytest.mark.parametrize(("kind", "text", "more", "expected"), BAD.values(), ids=BAD.keys())
def test_a_file_of_no_movement_is_refused_with_its_line(tmp_path, kind, text, more, expected):
    more = dict(more)
    clients = more.pop("clients", 2)
    if more.pop("wrap", False):
        text = f"<fcd-export>\n{text}</fcd-export>"
    with pytest.raises(Refused) as refused:
        geometry(tmp_path, kind, text, clients, **more)
    assert expected in str(refused.value)
    assert str(refused.value).count("network.cell.placement.path") == 1


def test_check_reads_the_file_and_a_run_knows_where_it_lies(tmp_path):
    link = {"kind": "log_distance", "bandwidth_hz": 1e7}
    placement = {"kind": "sumo", "path": "cars.xml"}
    file = garments(
        tmp_path,
        {
            "network.uplink": link,
            "network.cell": {"placement": placement},
            "population.clients": 2,
            "population.per_round": None,
        },
    )
    for text, expected in (
        (None, "which cannot be read (No such file or directory)"),
        (SUMO[:40], "what is no XML"),
    ):
        if text is not None:
            (tmp_path / "cars.xml").write_text(text)
        with pytest.raises(ScenarioError) as error:
            check(file)
        assert len(error.value.problems) == 1
        assert "network.cell.placement.path: got" in error.value.problems[0]
        assert expected in error.value.problems[0]
    (tmp_path / "cars.xml").write_text(SUMO)
    check(file)
    assert load(file).absolute()["network"]["cell"]["placement"]["path"] == str(tmp_path / "cars.xml")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"until_s": 1.0, "from_s": 2.0}, "until_s: got 1, expected more than from_s, 2"),
        ({"vehicles": ["a"]}, "vehicles: got 1 ids, expected one for each of the 2 clients"),
        ({"vehicles": ["a", "a"]}, "vehicles: got 'a' twice, expected each once"),
    ],
)
def test_seconds_and_vehicles_that_cannot_be_are_refused(tmp_path, changes, expected):
    (tmp_path / "cars.xml").write_text(SUMO)
    placement = {"kind": "sumo", "path": "cars.xml"} | changes
    link = {"kind": "log_distance", "bandwidth_hz": 1e7}
    file = garments(
        tmp_path,
        {
            "network.uplink": link,
            "network.cell": {"placement": placement},
            "population.clients": 2,
            "population.per_round": None,
        },
    )
    with pytest.raises(ScenarioError) as error:
        check(file)
    assert any(expected in problem for problem in error.value.problems)
