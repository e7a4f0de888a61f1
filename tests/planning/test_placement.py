import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedray.checks import check
from fedray.planning.placement import Node, pack, share
from tests.helpers import tiny

SITES = {"a": {"folders": ["artist-1", "artist-2"]}, "b": {"folders": ["artist-3", "artist-4", "artist-5"]}}
AT_SITES = {"data.sites": SITES}


def packed(tmp_path, nodes, changes=None, **runtime):
    return pack(
        check(tiny(tmp_path, (changes or {}) | {"runtime": {"executor": "ray", **runtime}})).scenario, nodes
    )


@given(
    st.lists(st.integers(1, 16), min_size=1, max_size=5), st.integers(1, 40), st.sampled_from([1.0, 2.0, 4.0])
)
def test_a_share_is_the_largest_of_which_so_many_fit_without_being_cut(sizes, n, wanted):
    def fit(part):
        return sum(int(size / part + 1e-9) for size in sizes)

    part = share(sizes, n, wanted)
    assert 0 < part <= wanted
    assert fit(part) >= n
    assert part == wanted or fit(min(wanted, part + 2e-4)) < n


@pytest.mark.parametrize(
    ("nodes", "runtime", "places", "evaluator"),
    [
        ([Node(2)], {}, [(1.0, 0.0)] * 2, 0.0),  # a client a core
        ([Node(16)], {}, [(1.0, 0.0)] * 5, 0.0),  # no more actors than clients
        ([Node(4)], {"threads": 2}, [(2.0, 0.0)] * 2, 0.0),
        ([Node(2)], {"actors": 5}, [(0.4, 0.0)] * 5, 0.0),  # more actors than cores share them
        ([Node(1), Node(1)], {"actors": 3}, [(0.5, 0.0)] * 3, 0.0),  # no node holds two thirds twice
        ([Node(16, 2)], {}, [(1.0, 0.5)] * 2, 0.5),  # the evaluator has its part of a GPU
        ([Node(16, 8)], {}, [(1.0, 1.0)] * 5, 1.0),
        ([Node(16, 1)], {"gpus_per_actor": 0.2, "actors": 4}, [(1.0, 0.2)] * 4, 0.2),
    ],
)
def test_actors_take_what_fits(tmp_path, nodes, runtime, places, evaluator):
    packing = packed(tmp_path, nodes, **runtime)
    assert [(p.cpus, p.gpus) for p in packing.places] == places
    assert packing.evaluator_gpus == evaluator


def test_a_server_that_paints_has_its_part_of_a_gpu_too(tmp_path):
    from tests.helpers import garments

    def on_one_gpu(**augmentation):
        changes = {
            "augmentation": {"inference_steps": 1, **augmentation},
            "runtime": {"executor": "ray", "actors": 2},
        }
        return pack(check(garments(tmp_path, changes)).scenario, [Node(8, 1)])

    here, there = on_one_gpu(), on_one_gpu(at="client")
    assert (here.places[0].gpus, here.evaluator_gpus, here.server_gpus) == (0.25, 0.25, 0.25)
    assert (there.places[0].gpus, there.evaluator_gpus, there.server_gpus) == (0.3333, 0.3333, 0.0)


def test_every_site_has_an_actor_and_the_others_go_where_most_clients_share_one(tmp_path):
    nodes = [Node(8, 0), Node(1, 0, "a"), Node(2, 0, "b")]

    def sites(**runtime):
        return sorted(p.site for p in packed(tmp_path, nodes, AT_SITES, **runtime).places)

    assert sites(actors=1) == ["a", "b"]
    assert sites(actors=3) == ["a", "b", "b"]
    assert sites(actors=4) == ["a", "a", "b", "b"]
    assert sites() == ["a", "b", "b"]  # as many as the sites' own nodes have cores for


def test_as_many_runs_at_once_as_fit(tmp_path):
    assert packed(tmp_path, [Node(2)], actors=1).at_once([Node(2)]) == 2
    assert packed(tmp_path, [Node(2)]).at_once([Node(2)]) == 1
    assert packed(tmp_path, [Node(8, 4)], actors=1, gpus_per_actor=0.5).at_once([Node(8, 4)]) == 4


def test_plan_shows_how_actors_are_packed(fedray, tmp_path):
    import json

    file = tiny(tmp_path, AT_SITES | {"runtime": {"executor": "ray", "actors": 4}})
    code, out, _ = fedray("plan", file, "--json")
    assert code == 0
    assert json.loads(out)["actors"] == {
        "executor": "ray",
        "client": 4,
        "server": 1,
        "evaluator": 1,
        "sites": {"a": 2, "b": 2},
    }
    assert "2 at a, 2 at b  1 server, 1 evaluator" in fedray("plan", file)[1]
