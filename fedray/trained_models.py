"""The model of a run folder as a learner: what the run has made, and the base model that it began with. Of a
finished run, whose files say what its training data were, the data are not asked for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from fedray.checks import refuse_missing
from fedray.data import dataset_info
from fedray.executors import Job
from fedray.executors.model import Model
from fedray.executors.server import ServerWork
from fedray.learners.contexts import LearnerContext
from fedray.learners.learner import Learner
from fedray.learners.learners import NO_DATA, learner_class, load
from fedray.resume import finished
from fedray.runs import reader
from fedray.runs.folder import RunFolder
from fedray.scenario import Scenario, ScenarioError
from fedray.transport.buffer import DTYPES


def default_device() -> torch.device:
    """A GPU where this process sees one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def trained(scenario: Scenario, run: RunFolder, device: torch.device) -> Learner:
    """The result where there is one, otherwise what the newest whole checkpoint holds.

    Args:
        scenario: the run's.
        run: whose model it is.
        device: where its weights shall be.

    Raises:
        ScenarioError: for a run without a whole checkpoint, or a model that is not whole.
    """
    if (result := finished(run)) is not None and (run.path / "model").is_dir():
        return _exported(scenario, run.path, device, result["artifacts"])
    if scenario.model.built_for_data:  # on the way, what it was built for is with the data alone
        refuse_missing(reader.scenario(run.path))
    job = Job(scenario, run.path)
    model = Model(job, device)
    server = ServerWork(job)
    for folder, state in run.states():
        if not isinstance(state, str):
            try:
                model.receive(*server.restore(model.flat.layout, folder, state.saved))
                return model.learner
            except ValueError:
                continue
    raise ScenarioError(
        [f"{run.path}: got a run without a whole checkpoint, expected one that has trained a round"]
    )


def _exported(scenario: Scenario, folder: Path, device: torch.device, artifacts: Sequence[str]) -> Learner:
    """A finished run's model, from its `model/`, of which the run's artifacts name every file.

    Raises:
        ScenarioError: where that is not whole, or has links out of the run folder.
    """
    reader.refuse_links_within(folder, folder / "model")
    if missing := [name for name in artifacts if name.startswith("model/") and not (folder / name).is_file()]:
        raise ScenarioError(
            [f"{folder / missing[0]}: got nothing, expected a file of the model that the run wrote"]
        )
    with _damage_refused(folder / "model"):
        context = _context(scenario, folder, device)
        return learner_class(scenario.model).from_export(scenario.model, context, folder / "model")


def untrained(scenario: Scenario, run: RunFolder, device: torch.device) -> Learner:
    """The model before any training."""
    if scenario.model.built_for_data and finished(run) is not None and (run.path / "model").is_dir():
        reader.refuse_links_within(run.path, run.path / "model")
        with _damage_refused(run.path / "model"):
            context = _context(scenario, run.path, device)
            return learner_class(scenario.model).load(scenario.model, context)
    if scenario.model.built_for_data:
        refuse_missing(reader.scenario(run.path))
    return load(scenario, run.path, device, DTYPES[scenario.training.precision])


def _context(scenario: Scenario, folder: Path, device: torch.device) -> LearnerContext:
    """What a finished run's learner was built from, from its exported files where they say so."""
    dataset = NO_DATA
    if scenario.model.built_for_data:
        exported = learner_class(scenario.model).exported_dataset(scenario.model, folder / "model")
        if exported is None:
            refuse_missing(reader.scenario(folder))
            exported = dataset_info(scenario.data, folder)
        dataset = exported
    return LearnerContext(dataset, folder, scenario.seed, device, DTYPES[scenario.training.precision])


@contextmanager
def _damage_refused(model: Path) -> Iterator[None]:
    """Whatever the libraries that read an exported model make of a damaged one is one line."""
    try:
        yield
    except ScenarioError:
        raise
    except Exception as e:
        reason = (str(e).strip() or type(e).__name__).splitlines()[0][:200]
        if reason.startswith(str(model)):  # it names the file itself
            raise ScenarioError([reason]) from None
        raise ScenarioError([f"{model}: got {reason}, expected the whole model that the run wrote"]) from None
