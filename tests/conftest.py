import os

os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # before anything imports ray
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_metrics_report_interval_ms"] = "1000"  # noqa: SIM112 (its name; what is published shall be seen soon)
os.environ["OMP_NUM_THREADS"] = "1"  # as the scenarios; more only fight with Ray's actors for the cores
os.environ["HF_HUB_OFFLINE"] = "1"  # whatever asks the hub shall fail at once
# nothing is left in the user's own cache; one for all processes of a user
os.environ.setdefault("HF_DATASETS_CACHE", f"/tmp/fedray-test-datasets-{os.getuid()}")

from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers import CommandLine, unevaluated

settings.register_profile(
    "fedray", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("fedray")


# before xdist reads the marks, which it does first of all that are no wrappers
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items):
    """Two processes share the tests: one has all that need the session's Ray, so that there is one; the
    others go file by file, so that a file's fixtures are made once. Files of few tests, among which are the
    longest, come first: whoever ends last then has little left."""
    groups = {item: "ray" if "cluster" in item.fixturenames else item.path.stem for item in items}
    sizes = Counter(groups.values())
    items.sort(key=lambda item: (groups[item] != "ray", sizes[groups[item]], groups[item]))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    return (yield)


@pytest.fixture(scope="session", autouse=True)
def shipped_work_is_counted_once():
    """Counting a Stable Diffusion's work takes seconds, and each test has its own folder; where a scenario
    names nothing but what ships, the folder makes no difference."""
    from fedray.planning import workload
    from fedray.scenario.kinds import user_kinds

    count, known = workload._count, {}

    def once(scenario, *where):
        model, data, augmentation = scenario.model, scenario.data, scenario.augmentation
        names = [getattr(model, "base", "tiny-sd"), getattr(augmentation, "generator", "tiny-sd")]
        if names != ["tiny-sd"] * 2 or not str(getattr(data, "path", "shipped:")).startswith("shipped:"):
            return count(scenario, *where)
        if any(user_kinds(scenario)):  # whose code may change
            return count(scenario, *where)
        key = workload._counted_by(scenario, Path())
        if key not in known:
            known[key] = count(scenario, *where)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "_count", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def a_text_is_parsed_once():
    """Reading YAML with its lines takes longer than the rest of most tests, and most read the same text."""
    from fedray.scenario import tree

    parse, known = tree.parse, {}

    def once(text, where):
        if text not in known:
            known[text] = parse(text, where)
        return tree.copied(known[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "parse", once)
        yield


@pytest.fixture(autouse=True)
def reports_draw_against_rounds_alone(request, monkeypatch):
    """Three of a metric's four pictures are left out where the report is not what is tested: drawing them
    takes longer than a small run."""
    from fedray.report import charts, page, replicates

    def against_rounds(draw, runs, key):
        return dict.fromkeys(charts.AXES, "") | {"rounds": draw(runs, key, "rounds")}

    if request.path.parent.name != "report":
        monkeypatch.setattr(page, "_against", partial(against_rounds, charts.curves))
        monkeypatch.setattr(page, "_means_against", partial(against_rounds, replicates.bands))


@pytest.fixture(scope="session")
def cluster():
    """One Ray for all tests; RayExecutor uses a Ray that is there."""
    import ray

    ray.init(address="local", num_cpus=6, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture
def weights_alone():
    """Nothing is evaluated in a test that compares weights."""
    with unevaluated():
        yield


@pytest.fixture
def fedray(monkeypatch, capfd, tmp_path):
    """The command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capfd)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    """A whole serial run of three rounds: its scenario and its folder."""
    from tests.helpers import run, tiny

    folder = tmp_path_factory.mktemp("unbroken")
    file = tiny(folder, {"training.rounds": 3})
    run(file, folder / "run")
    return file, folder / "run"
