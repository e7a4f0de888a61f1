"""Who is whose neighbour, from files."""

import json

import pytest

from fedray import checks
from fedray.data.graph_file import read_graph
from fedray.planning.plan import plan
from fedray.runs import fingerprint
from fedray.scenario import ScenarioError
from fedray.scenario.base import Refused
from fedray.scenario.graph_file import GraphFile
from tests.executors.test_node_models import scenario, stepped

RING = {0: (1, 4), 1: (0, 2), 2: (1, 3), 3: (2, 4), 4: (0, 3)}
PAIRS = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]


def read(folder, name, text, clients=5):
    (folder / name).write_text(text)
    return read_graph(GraphFile(file=name), folder, "topology.graph.file", clients)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("edges.txt", "# a path\n0 1\n1 2  # and on\n\n2 0\n"),
        ("edges.csv", "source,target\n0,1\n1,2\n2,0\n"),
        ("windows.csv", "0;1\r\n1;2\r\n2;0\r\n"),
        ("adjacency.txt", "0 1\n1 2\n2 0\n3\n4\n"),
        ("lists.json", '{"0": [1], "1": [2], "2": [0], "3": []}'),
        ("pairs.json", "[[0, 1], [1, 2], [2, 0]]"),
    ],
)
def test_forms_of_a_graph_say_the_same(name, text, tmp_path):
    assert read(tmp_path, name, text) == {0: (1,), 1: (2,), 2: (0,), 3: (), 4: ()}


def test_what_networkx_writes_is_read(tmp_path):
    networkx = pytest.importorskip("networkx")
    networkx.write_edgelist(networkx.cycle_graph(5), tmp_path / "edges", data=False)
    networkx.write_adjlist(networkx.cycle_graph(5), tmp_path / "lists")
    for name in ("edges", "lists"):
        got = read_graph(GraphFile(file=name), tmp_path, "k", 5)
        assert {frozenset((i, j)) for i, others in got.items() for j in others} == set(map(frozenset, PAIRS))


@pytest.mark.parametrize(
    ("name", "text", "got"),
    [
        ("g.txt", "0 1\n1 5\n", r"'5' in line 2 of 'g.txt', expected the number of a client, from 0 to 4"),
        ("g.txt", "0 1\n1 {}\n", r"'\{\}' in line 2"),
        ("g.txt", "0 1\n-1 2\n", r"'-1' in line 2"),
        ("g.txt", "0 0\n", r"client 0 as its own neighbour in line 1"),
        ("g.json", '{"0": [7]}', r"'7' in the neighbours of 0"),
        ("g.json", '{"0": [true]}', r"'True' in the neighbours of 0"),
        ("g.json", '{"0": 1}', r"expected an object of lists"),
        ("g.json", "[[0, 1]", r"expected an object of lists"),
    ],
)
def test_what_is_no_client_is_refused_with_its_line(name, text, got, tmp_path):
    with pytest.raises(Refused, match=got):
        read(tmp_path, name, text)


def test_a_file_of_a_ring_makes_the_rounds_of_a_ring(tmp_path):
    (tmp_path / "ring.txt").write_text("".join(f"{i} {j}\n" for i, j in PAIRS))
    by_file = stepped(scenario(tmp_path, {"graph": {"file": "ring.txt"}}), 1)[0]
    assert by_file == stepped(scenario(tmp_path, {"graph": "ring"}, None), 1)[0]
    directed = {"graph": {"file": "ring.txt"}, "mixing": "push_sum"}
    as_kind = {"graph": "directed_ring", "mixing": "push_sum"}
    assert stepped(scenario(tmp_path, directed), 1)[0] == stepped(scenario(tmp_path, as_kind), 1)[0]


def test_a_graph_in_parts_is_refused_by_their_clients_and_a_missing_file_by_its_line(tmp_path):
    (tmp_path / "parts.json").write_text(json.dumps([[0, 1], [1, 2], [3, 4]]))
    file = scenario(tmp_path, {"graph": {"file": "parts.json"}})
    with pytest.raises(ScenarioError, match=r"'parts.json', in round 1 in 2 parts: \{0, 1, 2\} and \{3, 4\}"):
        plan(checks.check(file))
    with pytest.raises(ScenarioError, match=r"garments.yaml:\d+: topology.graph.file: got 'no.txt'"):
        checks.check(scenario(tmp_path, {"graph": {"file": "no.txt"}}))


def test_a_section_with_another_key_is_refused_by_that_key_alone(tmp_path):
    with pytest.raises(ScenarioError) as e:
        checks.check(scenario(tmp_path, {"graph": {"path": "ring.txt"}}))
    got = [line.split(" ", 1)[1] for line in e.value.lines]
    assert got == [
        "topology.graph.file: got nothing, expected this key",
        "topology.graph.path: got an unknown key, expected one of file",
    ]


def test_a_run_belongs_to_its_graphs_contents(tmp_path):
    (tmp_path / "ring.txt").write_text("0 1\n")
    loaded = checks.check(scenario(tmp_path, {"graph": {"file": "ring.txt"}}))
    before = fingerprint.of_files(loaded.scenario, loaded.folder)
    (tmp_path / "ring.txt").write_text("0 2\n")
    assert before.keys() == {"topology.graph.file (its files)"}
    assert fingerprint.of_files(loaded.scenario, loaded.folder) != before
