"""What is done in another way than one might think: a relay's rounding, captions that are cut."""

from collections.abc import Iterator
from pathlib import Path

from fedray.data import Dataset
from fedray.scenario.scenario import Scenario


def notes_of(scenario: Scenario, folder: Path, dataset: Dataset) -> Iterator[str]:
    """Each in a sentence."""
    if scenario.topology.hands_model_on and scenario.payload != "fp32":
        yield (
            f"a relay hands the model itself on, here in {scenario.payload}: what a client changes of a"
            " weight by less than that can tell is lost with each hop (topology parallel sends differences)"
        )
    gpus = scenario.runtime.gpus_per_actor
    if not isinstance(gpus, str) and gpus > 1 and not scenario.model.has_frozen_base:
        yield f"an actor computes on one GPU: of runtime.gpus_per_actor, {gpus:g}, the others stay unused"
    if scenario.privacy is not None:
        yield from scenario.privacy.notes(scenario)
    if scenario.personal is not None and scenario.personal.kept_models:
        yield "clients' own models stay with them: the server's model is evaluated and exported"
    if scenario.aggregation.global_models > 1:
        yield "the first of the clusters' models is evaluated; all are exported"
    if scenario.tuning.local or scenario.model.trains_home:
        yield (
            "what stays with its client is not in the server's model, which is evaluated and exported: there"
            " it has its initial values"
        )
    # captions of other sets are made of their labels' names, and short
    reads = scenario.model.reads_captions and not dataset.has_test_set
    if (reads or scenario.model.of_conversations) and not scenario.sites:
        from fedray.learners.learners import learner_class

        yield from learner_class(scenario.model).notes(scenario.model, folder, dataset.train, scenario.tuning)
