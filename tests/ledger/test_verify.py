"""`fedray verify`: a run is as it was signed, and any byte that is not is named."""

import json
import shutil

import pytest

from fedray.verification import verify
from tests.helpers import garments, run

CHANGES = {
    "training.rounds": 3,
    "population": {"clients": 3, "per_round": 2},
    "ledger": {"keep": "updates"},
}


@pytest.fixture(scope="module")
def ledger_run(tmp_path_factory):
    """A run of three rounds whose ledger keeps updates."""
    folder = tmp_path_factory.mktemp("ledger")
    run(garments(folder, CHANGES), folder / "run")
    return folder / "run"


def test_an_untouched_run_verifies_and_its_updates_add_up_to_its_weights(ledger_run):
    result = verify(ledger_run)
    assert result["problems"] == []
    assert (result["rounds"], result["leaves"], result["rounds_added_again"]) == (3, 6, 3)
    weights = json.loads((ledger_run / "result.json").read_text())["weights_sha256"]
    assert result["head"]["weights"] == weights
