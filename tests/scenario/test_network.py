"""What a network section cannot be, and what does not go with it."""

# ruff: noqa: E501  a table, a line a case

import pytest

from fedray.checks import check
from fedray.scenario.load import ScenarioError
from tests.helpers import garments

AIR = {"kind": "log_distance", "bandwidth_hz": 5e6}
UMI = {"kind": "3gpp", "model": "umi", "bandwidth_hz": 5e6, "frequency_hz": 3.5e9}
CELL = {"placement": {"kind": "disc", "radius_m": 100.0}}
FLOPS = {"kind": "flops", "peak_flops": 1e12, "active_w": 1.0}


def at(*places):
    return {"placement": {"kind": "places", "at": [list(map(float, p)) for p in places]}}


BAD = {
    "a radio link without a cell": ({"network.uplink": AIR}, "network.cell: got nothing, expected where devices are, since uplink depend"),
    "a frequency outside the model's range": (
        {"network.uplink": UMI | {"frequency_hz": 2e11}, "network.cell": CELL}, "network.uplink.frequency_hz: got 2e+11, expected 0.5 to 100 GHz for umi"),
    "nearer than the model allows": (
        {"network.uplink": UMI | {"model": "uma"}, "network.cell": CELL}, "network.cell.placement.least_m: got 10, expected at least 35, the nearest of uma"),
    "no distance to the server": (
        {"network.cell": at((1, 0), (0, 0), (2, 0), (3, 0), (4, 0))}, "network.cell.placement.at.1: got 0 m from the server"),
    "no distance between two devices": (
        {"network.cell": at((1, 0), (5, 0), (2, 0), (1, 0), (4, 0))}, "network.cell.placement.at.3: got 0 m from client 0"),
    "places for others": ({"network.cell": at((1, 0))}, "network.cell.placement.at: got 1 places, expected one for each of the 5 clients"),
    "a disc of nothing": ({"network.cell": {"placement": {"kind": "disc", "radius_m": 0.0}}}, "network.cell.placement.radius_m: got 0.0, expected a number above 0"),
    "a distance of nothing in a row": ({"network.cell": {"placement": {"kind": "line", "spacing_m": 0.0}}}, "spacing_m: got 0.0, expected a number above 0"),
    "negative power": ({"network.uplink.transmit_w": -1.0}, "network.uplink.transmit_w: got -1.0, expected at least 0"),
    "a device without energy figures": ({"network.device": {"kind": "flops", "peak_flops": 1e12}}, "network.device.active_w: got nothing, expected this key"),
    "a device that nobody knows": ({"network.device": {"kind": "profile", "name": "abacus"}}, "network.device.name: got 'abacus', expected one of raspberry_pi_5"),
    "a mix with a bad member": (
        {"network.device": {"kind": "mix", "of": [{"share": 1.0, "device": {"kind": "flops", "peak_flops": 1e12}}]}}, "network.device.of.0.device.active_w: got nothing"),
    "an unknown key in a mix": (
        {"network.device": {"kind": "mix", "of": [{"share": 1.0, "device": FLOPS | {"idle": 1.0}}]}}, "network.device.of.0.device.idle: got an unknown key, expected idle_w (did you mean it?)"),
    "half a range of speeds": (
        {"network.cell": CELL | {"mobility": {"kind": "random_waypoint", "speed_mps": [1.0]}}}, "network.cell.mobility.speed_mps: got 1 of them, expected at least 2"),
    "a trace that is not there": ({"network.uplink": {"kind": "trace", "path": "no.trace"}}, "network.uplink.path: got 'no.trace', which cannot be read"),
    "base station to terminal between devices": ({"network.sidelink": UMI}, "network.sidelink.kind: got '3gpp', expected"),
    "a deadline for a relay": (
        {"topology": {"kind": "relay"}, "network.deadline_s": 3.0}, "network.deadline_s: got one for a relay"),
    "a ring that somebody may leave": (
        {"topology": {"kind": "parallel", "reduce": "allreduce"}, "network.device": FLOPS | {"dropout": 0.1}}, "topology.reduce: got allreduce with network.device.dropout"),
    "more asked than there are": ({"population.over_select": 1}, "population.over_select: got 1, expected at most 0"),
    "fedcs without a deadline": ({"population.selection": "fedcs"}, "population.selection: got fedcs, expected network.deadline_s"),
    "fairness on a constant link": ({"population.selection": "proportional_fair"}, "population.selection: got proportional_fair, expected a radio uplink"),
    "fairness where resource blocks are dealt by it": (
        {"population.selection": "proportional_fair", "network.uplink": AIR | {"allocation": "blocks"}, "network.cell": CELL},
        "population.selection: got proportional_fair, expected another beside network.uplink.allocation blocks"),
    "fairness in a relay": (
        {"population.selection": "proportional_fair", "network.uplink": AIR, "network.cell": CELL, "topology": {"kind": "relay"}},
        "population.selection: got proportional_fair for a relay, expected another, or topology.kind parallel"),
    "a tour without distances": ({"topology": {"kind": "relay", "order": "tour"}}, "network.sidelink.rate_bps: got one rate for all, expected a table of rates for tour"),
    "neighbours without places": ({"topology": {"kind": "relay", "groups": "nearest"}}, "topology.groups: got nearest, expected network.cell"),
    "walking along a row": (
        {"network.cell": {"placement": {"kind": "line", "spacing_m": 5.0}, "mobility": {"kind": "random_waypoint"}}}, "network.cell.mobility: got random_waypoint over line"),
    "a broadcast upwards": (
        {"network.uplink": AIR | {"allocation": "broadcast"}, "network.cell": CELL}, "network.uplink.allocation: got broadcast, expected equal or min_max"),
    "fewer resource blocks than clients": (
        {"network.uplink": AIR | {"allocation": "blocks", "bandwidth_hz": 400e3}, "network.cell": CELL}, "network.uplink.allocation: got blocks, of which there are 2"),
    "min_max in a relay": (
        {"topology": {"kind": "relay"}, "network.uplink": AIR | {"allocation": "min_max"}, "network.cell": CELL}, "network.uplink.allocation: got min_max for a relay"),
    "saving energy without a deadline": ({"network.save_energy": True}, "network.save_energy: got true without a deadline"),
    "saving energy on a device of one speed": ({"network.save_energy": True, "network.deadline_s": 5.0}, "network.save_energy: got true for a flops"),
    "saving energy where blocks are lost": (
        {"network.save_energy": True, "network.deadline_s": 5.0, "network.cell": CELL, "network.uplink": AIR | {"harq": 4, "block_error": 0.1},
         "network.device": {"kind": "cpu", "frequency_hz": 2e9}}, "network.save_energy: got true, expected a radio uplink, allocation equal"),
    "cells between devices": (
        {"network.sidelink": {"kind": "sidelink", "model": "d2d", "bandwidth_hz": 1e6, "frequency_hz": 2e9, "interference": {"kind": "neighbours", "load": 0.5, "distance_m": 500.0}},
         "network.cell": CELL}, "network.sidelink.interference: got neighbours"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), BAD.values(), ids=BAD.keys())
def test_a_network_that_cannot_be_is_refused_in_one_line(tmp_path, changes, expected):
    file = garments(tmp_path, changes)
    with pytest.raises(ScenarioError) as error:
        check(file)
    lines = [p for p in error.value.problems if expected in p]
    assert len(lines) == 1, error.value.problems
    assert lines[0].startswith(f"{file}:")


def test_check_imports_neither_sionna_nor_scipy(tmp_path):
    import subprocess
    import sys

    file = garments(tmp_path, {"network.uplink": UMI, "network.cell": CELL})
    code = f"import sys; from pathlib import Path; from fedray.checks import check; check(Path({str(file)!r})); print([m for m in ('sionna', 'scipy', 'torch') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"
