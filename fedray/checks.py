"""What can be refused before torch: text, sections, combinations, and whether files exist."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fedray import shipped
from fedray.callbacks.reporting import reporters
from fedray.data import Dataset, Samples, held_out, holdings, open_source
from fedray.data.image_folder import read
from fedray.data.places import located, verify_exists
from fedray.data.sources import to_download
from fedray.evaluation.feature_files import locate
from fedray.lazy import resolve
from fedray.learners.stage_names import refuse_unknown, stage_names
from fedray.privacy import accounting
from fedray.scenario import Loaded, Refused, Scenario, ScenarioError, load
from fedray.scenario.base import file_paths
from fedray.scenario.features import listed
from fedray.scenario.kinds import user_paths
from fedray.scenario.lm_eval import INSTALL as INSTALL_HARNESS
from fedray.scenario.lm_eval import PACKAGE as HARNESS
from fedray.scenario.model import Model
from fedray.scenario.quantized_formats import INSTALL, QUANTIZED
from fedray.scenario.topology import Split


def check(file: Path, settings: Sequence[str] = (), seed: int | None = None) -> Loaded:
    """A scenario whose files are there.

    Raises:
        ScenarioError: with every problem found.
    """
    return refuse_missing(load(file, settings, seed))


def refuse_missing(loaded: Loaded) -> Loaded:
    """The same scenario, if the files that it names are there.

    Raises:
        ScenarioError: with every problem found.
    """
    problems: list[str] = []
    more = 0
    for variant in loaded.variants.values() or [loaded]:
        missing = _missing(variant)
        problems += [p for p in missing.problems if p not in problems]
        more += missing.more
    if problems:
        raise ScenarioError(problems, more)
    return loaded


def _missing(loaded: Loaded) -> ScenarioError:
    """What a scenario names that is not there; without problems where all is."""
    scenario = loaded.scenario
    refused: list[Refused] = []

    def attempt(key: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Refused as e:
            if str(e) not in map(str, refused):  # two actions may look for one file
                refused.append(e)
        except OSError as e:  # a folder on the way that may not be looked into, a disk that fails
            refused.append(
                Refused(
                    key,
                    f"{e.filename or 'a file'}, which cannot be read ({e.strerror})",
                    "files that can be read",
                )
            )

    # what lies at a site, its own nodes look at
    if (verify_data := scenario.data.verify_files) is not None:
        attempt("data", lambda: resolve(verify_data)(scenario.data, loaded.folder))
    elif not scenario.sites and to_download(scenario.data, loaded.folder) is None:
        quick = scenario.data.quick()
        attempt("data", lambda: holdings(scenario.model_copy(update={"data": quick}), loaded.folder))
        if tested(scenario) and not scenario.data.may_download:
            attempt("data", lambda: open_source(quick, loaded.folder, "test"))
    if scenario.topology.splits_model:
        attempt("model", partial(_cut, scenario.model, scenario.split, loaded.folder))
    elif (verify_files := scenario.model.verify_files) is not None:
        attempt("model", lambda: resolve(verify_files)(scenario.model, loaded.folder))
    if (verify_sampling := scenario.model.verify_sampling) is not None:
        section = scenario.evaluation
        attempt("model", lambda: resolve(verify_sampling)(scenario.model, section, loaded.folder))
    if (verify_base := scenario.tuning.verify_base) is not None:
        attempt("tuning", lambda: resolve(verify_base)(scenario.tuning, scenario.model, loaded.folder))
    attempt("tuning.parts", partial(_refuse_unknown_parts, scenario, loaded.folder))
    for key, action in _of_evaluation(scenario, loaded.folder):
        attempt(key, action)
    planner = scenario.companion_planner()
    for key, action in planner.missing_files(loaded.folder) if planner is not None else ():
        attempt(key, action)
    for key, action in _inputs(scenario, loaded.folder):
        attempt(key, action)
    for key, path in user_paths(scenario):
        if not (key.startswith("data.") and (scenario.sites or scenario.data.may_download)):
            attempt(key, partial(verify_exists, path, loaded.folder, key))
    attempt("privacy.epsilon", lambda: accounting.refuse_unknown(scenario))
    attempt("secure_aggregation", lambda: _cryptography(scenario))
    attempt("runtime.base_precision", lambda: _quantizer(scenario))
    attempt("evaluation.lm_eval", partial(_harness, scenario, loaded.folder))
    attempt("ledger", partial(_refuse_missing_keys, scenario, loaded.folder))
    attempt("runtime.report_to", lambda: reporters(loaded))
    return loaded.error(refused)


def _of_evaluation(scenario: Scenario, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """What looks for the files that `evaluation` names, by its key."""
    section = scenario.evaluation
    if (reference := section.reference) is not None:
        place = "evaluation.reference"
        yield place, partial(read, reference.path, folder, place, reference.caption_key, None)
        yield f"{place}.judge", partial(_judge, reference.judge, folder, f"{place}.judge")
    if (quality := section.quality) is not None:
        key = "evaluation.quality.judge"
        yield key, partial(_judge, quality.judge, folder, key)
    for features in listed(section.features):
        yield "evaluation.features", partial(locate, features, folder)


def _inputs(scenario: Scenario, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """What checks the files that `network` and `topology` name, by their keys."""
    clients = scenario.population.clients
    for direction, link in scenario.network.links.items():
        for path in link.files():
            key = f"network.{direction}.path"
            yield key, partial(resolve(link.verify_file), path, folder, key)
    sections = chain(scenario.network.sections("network"), scenario.topology.sections("topology"))
    for name, section in sections:
        if (verify := section.verify_inputs) is not None:
            for key in (f"{name}.{field}" for field, _ in file_paths(section)):
                yield key, partial(resolve(verify), section, folder, key, clients)


def disclosures(loaded: Loaded) -> list[str]:
    """What of clients' samples leaves them as it is, of a scenario that is no sweep."""
    augmentation = loaded.scenario.augmentation
    first = None if augmentation is None or loaded.scenario.sweep is not None else augmentation.tune_first
    if first is None or not first.collects:
        return []
    how_many = "images" if first.samples is None else f"up to {first.samples} images each"
    return [f"clients send {how_many} to the server (augmentation.tune_first)"]


def privacy_facts(loaded: Loaded) -> dict[str, Any] | None:
    """What a whole run of a private scenario gives away, before anything trains (see accounting.facts). None
    for one without `privacy`, for a sweep, where dp-accounting is not installed, and for data that are at
    sites, not there yet or long to open.

    Raises:
        ScenarioError: for an epsilon that no noise would keep to.
    """
    scenario = loaded.scenario
    if scenario.privacy is None or scenario.sweep is not None or not accounting.installed():
        return None
    if scenario.sites or scenario.data.verify_files is not None:
        return None
    if to_download(scenario.data, loaded.folder) is not None:
        return None
    quick = scenario.model_copy(update={"data": scenario.data.quick()})
    try:
        _, held = holdings(quick, loaded.folder)
        samples = [len(held[client]) for client in range(len(held))]
        return accounting.facts(accounting.with_noise(scenario, samples), samples)
    except Refused as e:
        raise loaded.error([e]) from None


def readable(loaded: Loaded, dataset: Dataset | None = None) -> tuple[Samples, Mapping[int, np.ndarray]]:
    """The samples that this process may open, and which of them each client holds, after every image has been
    opened. `dataset`: the scenario's data, where they are open already.

    Raises:
        Refused, ScenarioError: where files are missing, or with every image that cannot be read.
    """
    dataset = dataset or Dataset.of(loaded.scenario, loaded.folder)
    samples, held = holdings(loaded.scenario, loaded.folder, dataset=dataset)
    bad = list(samples.unreadable(held))
    if loaded.scenario.held_out_share:
        bad += samples.unreadable(held_out(loaded.scenario, loaded.folder, dataset=dataset)[1])
    if tested(loaded.scenario):
        bad += dataset.test.unreadable({})
    if bad:
        raise loaded.error(bad)
    return samples, held


def _refuse_without(library: str, key: str, got: str, expected: str) -> None:
    """Raises Refused where an optional library is not installed.

    Args:
        library: by the name that it is imported by.
        key: of the scenario, that asks for it.
        got: what the key has.
        expected: how it is installed.
    """
    if find_spec(library) is None:
        raise Refused(key, got, expected)


def _quantizer(scenario: Scenario) -> None:
    """Raises Refused where the library that quantizes a base model is not installed."""
    name = scenario.runtime.base_precision
    if name in QUANTIZED:
        library = QUANTIZED[name].library
        _refuse_without(library, "runtime.base_precision", f"{name} without {library}", INSTALL)


def _harness(scenario: Scenario, folder: Path) -> None:
    """Raises Refused where the harness that has a scenario's tasks, or a folder of tasks, is not there."""
    section = scenario.evaluation.lm_eval
    if section is None:
        return
    key = "evaluation.lm_eval"
    if section.include is not None and not located(section.include, folder, f"{key}.include").is_dir():
        raise Refused(f"{key}.include", repr(section.include), "a folder of task files (*.yaml)")
    _refuse_without(HARNESS, key, f"one without the package {HARNESS}", INSTALL_HARNESS)


def refuse_without_signatures() -> None:
    """Raises Refused where the library that signs and verifies is not installed."""
    got = "one without the package cryptography"
    _refuse_without("cryptography", "ledger", got, "pip install 'fedray[ledger]'")


def _refuse_missing_keys(scenario: Scenario, folder: Path) -> None:
    """Raises Refused where what signs a ledger is not there: the library, or a key's file."""
    if scenario.ledger is None:
        return
    refuse_without_signatures()
    resolve(scenario.ledger.verify_files)(scenario, folder)


def _cryptography(scenario: Scenario) -> None:
    """Raises Refused where the library that makes keys and masks is not installed."""
    if scenario.secure_aggregation is not None:
        got = "some without cryptography"
        _refuse_without("cryptography", "secure_aggregation", got, "pip install 'fedray[secure]'")


def tested(scenario: Scenario) -> bool:
    """Whether the run opens its source's test set."""
    section = scenario.evaluation
    denoised = section.denoising is not None and section.denoising.path is None
    evaluated = scenario.model.evaluates_on_test_set or section.quality or section.leakage or denoised
    matches = section.clients is not None and not section.clients.held_out_share
    return bool(evaluated or matches) and scenario.data.has_test_set and not scenario.sites


def find(scenario: str) -> Path:
    """A scenario by its file, or by the name of a shipped one.

    Raises:
        ScenarioError: where neither is there.
    """
    try:
        if Path(scenario).is_file():
            return Path(scenario)
    except OSError as e:
        raise ScenarioError(
            [f"{scenario}: got a path that cannot be looked at ({e.strerror}), expected a file"]
        ) from None
    ours = shipped.scenarios()
    if scenario in ours:
        return ours[scenario]
    import difflib

    near = difflib.get_close_matches(scenario, ours, n=1)
    hint = f"{near[0]} (did you mean it?)" if near else "a file, or one of " + ", ".join(ours)
    raise ScenarioError([f"{scenario}: got a scenario that is not there, expected {hint}"])


def _cut(model: Model, topology: Split, folder: Path) -> None:
    if names := stage_names(model, folder):
        refuse_unknown(names, topology)


def _refuse_unknown_parts(scenario: Scenario, folder: Path) -> None:
    chosen = scenario.tuning.chosen_parts
    there = scenario.model.parts_in(folder) if chosen else None
    if there is not None and (unknown := [part for part in chosen if part not in there]):
        raise Refused("tuning.parts", ", ".join(map(repr, unknown)), f"some of {', '.join(there)}")


def _judge(path: str, folder: Path, key: str) -> None:
    if not located(path, folder, key).is_file():
        raise Refused(key, repr(path), "a safetensors file of a judge")
