"""Runs as trials of Ray Tune."""

from importlib.util import find_spec
from pathlib import Path

from fedray.callbacks import Callback, RoundReport
from fedray.scenario import ScenarioError

NEEDS = ("fsspec", "pandas", "pyarrow", "requests")  # without which ray.tune cannot be imported


def require_tune() -> None:
    """Raises ScenarioError where Ray Tune cannot be imported."""
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        got = f"Ray Tune without {' and '.join(missing)}"
        raise ScenarioError([f"fedray.trainable: got {got}, expected pip install 'ray[tune]'"])


def trial_folder() -> Path:
    """Of the trial that this process runs."""
    from ray import tune

    return Path(tune.get_context().get_trial_dir())


class TuneReporter(Callback):
    """Each round's metrics, for Tune's schedulers and results."""

    def on_round(self, report: RoundReport) -> None:
        from ray import tune

        tune.report({name: value for name, value in report.metrics.items() if value is not None})
