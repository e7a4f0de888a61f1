import pytest

from tests.helpers import UNSEEN, run, tiny


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """A run of another seed and another adapter than `unbroken`, over the same base."""
    folder = tmp_path_factory.mktemp("other")
    tuning = {"kind": "lora", "rank": 4, "alpha": 8, "targets": "kohya"}
    changes = UNSEEN | {"seed": 5, "training.rounds": 1, "tuning": tuning}
    changes |= {"population": {"clients": 1, "per_round": 1}, "data.partition": {"kind": "iid"}}
    changes["training.optimizer.learning_rate"] = 0.02
    run(tiny(folder, changes), folder / "other")
    return folder / "other"
