"""Experiment trackers, through accelerate's classes: TensorBoard, MLflow, Weights & Biases and others."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fedray.callbacks import Callback, EvaluationReport, RoundReport, RunEnd, RunStart
from fedray.scenario.tree import flat

PROJECT = "fedray"  # under which trackers list the runs of all scenarios
MLFLOW_URI = "MLFLOW_TRACKING_URI"
MLFLOW_FILES = "MLFLOW_ALLOW_FILE_STORE"
# Where trackers that keep their files on this machine keep a run's, in its folder.
FOLDERS = {
    "aim": "aim",
    "dvclive": "dvclive",
    "mlflow": "mlruns",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
}


class Tracker(Callback):
    """Reports a run to one of accelerate's trackers: the scenario's values as parameters, each round's
    metrics, and the grids of samples as images.

    A run that is resumed is reported again from its first round, so that it has one whole curve; what a
    tracker keeps in the run folder is written anew.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.environment: dict[str, str | None] = {}  # of MLflow, as it was before the run

    def on_start(self, start: RunStart) -> None:
        from accelerate.state import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # without which accelerate's classes cannot log
        self.run = start.run
        if self.name in FOLDERS:
            shutil.rmtree(self.run / FOLDERS[self.name], ignore_errors=True)
        if self.name == "mlflow":
            self._point_mlflow()
        self.tracker: Any = LOGGER_TYPE_TO_CLASS[self.name](**options(self.name, self.run))
        self.tracker.start()
        if self.name != "tensorboard":  # there, parameters would be a second run beside this one
            values = flat(start.scenario.model_dump(mode="json"))
            self.tracker.store_init_configuration({key: _plain(value) for key, value in values})
        for metrics in start.history:
            self._log(metrics)
            self._log_image(self.run / "samples" / f"round-{metrics['round']:04d}.png", metrics["round"])

    def on_evaluation(self, report: EvaluationReport) -> None:
        if report.samples is not None:
            self._log_image(report.samples, report.round_number)

    def on_round(self, report: RoundReport) -> None:
        self._log(report.metrics)

    def on_end(self, end: RunEnd) -> None:
        if hasattr(self, "tracker"):
            self.tracker.finish()
        for name, value in self.environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    def _point_mlflow(self) -> None:
        """To files in the run folder, unless environment or process say where its server is. MLflow 3 asks
        for consent to its file store, which it no longer develops; its databases need more than
        mlflow-skinny."""
        if os.environ.get(MLFLOW_URI) is None:
            files = {MLFLOW_URI: (self.run / FOLDERS["mlflow"]).as_uri(), MLFLOW_FILES: "true"}
            self.environment = {name: os.environ.get(name) for name in files}
            os.environ |= files

    def _log(self, metrics: Mapping[str, Any]) -> None:
        values = {k: v for k, v in metrics.items() if k != "round" and isinstance(v, int | float)}
        self.tracker.log(values, step=metrics["round"])

    def _log_image(self, file: Path, step: int) -> None:
        """A grid of samples, where there is one; each tracker takes an image in a form of its own."""
        if not file.is_file():
            return
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        if self.name == "tensorboard":
            self.tracker.log_images({"samples": np.asarray(image)[None]}, step, dataformats="NHWC")
        elif self.name == "mlflow":
            self.tracker.log_artifact(str(file), "samples")
        elif self.name in ("wandb", "swanlab"):
            self.tracker.log_images({"samples": [image]}, step=step)
        elif self.name in ("aim", "clearml"):
            self.tracker.log_images({"samples": image}, step=step)
        elif self.name == "comet_ml":
            self.tracker.tracker.log_image(str(file), name="samples", step=step)
        elif self.name == "dvclive":
            self.tracker.tracker.log_image(f"samples/{file.name}", str(file))
        elif self.name == "trackio":
            import trackio

            self.tracker.log({"samples": trackio.Image(str(file))}, step=step)


def options(name: str, run: Path) -> dict[str, Any]:
    """What accelerate's class of a tracker is made with: the run goes by its folder's name."""
    folder = str(run / FOLDERS.get(name, ""))
    by_name: dict[str, dict[str, Any]] = {
        "aim": {"run_name": run.name, "logging_dir": folder},
        "clearml": {"run_name": PROJECT, "task_name": run.name},
        "comet_ml": {"run_name": PROJECT},
        # no commits to the git repository that the user is in (which dvclive makes one of DVC), no dvc.yaml
        "dvclive": {"run_name": run.name, "dir": folder, "save_dvc_exp": False, "dvcyaml": None},
        "mlflow": {"experiment_name": PROJECT, "run_name": run.name},
        "swanlab": {"run_name": PROJECT, "experiment_name": run.name, "logdir": folder},
        "tensorboard": {"run_name": "", "logging_dir": folder},
        "trackio": {"run_name": PROJECT, "name": run.name},
        "wandb": {"run_name": PROJECT, "name": run.name, "dir": folder},
    }
    return by_name[name]


def _plain(value: Any) -> Any:
    """A value that every tracker takes as a parameter."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)
