"""The learner that a scenario's `model` names."""

from pathlib import Path

import torch

from fedray.data import Dataset, DatasetInfo
from fedray.learners.contexts import LearnerContext
from fedray.learners.learner import Learner
from fedray.scenario.kinds import implementation
from fedray.scenario.model_section import ModelSection
from fedray.scenario.scenario import Scenario

SMALL = 2_000_000  # numbers of a network that is counted on the processor
NO_DATA = DatasetInfo(0, None, ())  # for a learner that is not built for its data


def learner_class(section: ModelSection) -> type[Learner]:
    """What implements a section."""
    learner: type[Learner] = implementation(section)
    return learner


def load(
    scenario: Scenario,
    folder: Path,
    device: torch.device,
    compute: torch.dtype,
    dataset: Dataset | None = None,
) -> Learner:
    """A scenario's learner with weights: a base model's, or drawn from the seed.

    Args:
        scenario: of which the learner reads `model`, `seed`, `data.augment`, `runtime.base_precision` and
            `runtime.gpus_per_actor`, and whether it is split.
        folder: where the scenario's relative paths start.
        device: where its weights shall be; "meta": nowhere.
        compute: the dtype that it computes in.
        dataset: the scenario's data, where they are open already.
    """
    section = scenario.model
    info = NO_DATA
    if section.built_for_data:
        info = (dataset or Dataset.of(scenario, folder)).info
    context = LearnerContext(
        info,
        folder,
        scenario.seed,
        device,
        compute,
        scenario.runtime.base_precision,
        _spread_over(scenario, device),
        in_stages=scenario.topology.splits_model,
        augment=tuple(scenario.data.augment),
        in_buckets=scenario.data.in_buckets,
    )
    return learner_class(section).load(section, context)


def _spread_over(scenario: Scenario, device: torch.device) -> tuple[torch.device, ...]:
    """The GPUs of an actor that has several for a frozen base; none where it computes on one."""
    wanted = scenario.runtime.gpus_for_base(scenario.model)
    n = min(wanted, torch.cuda.device_count()) if device.type == "cuda" else 1
    return tuple(torch.device("cuda", i) for i in range(n)) if n > 1 else ()


def for_counting(scenario: Scenario, folder: Path, dataset: Dataset | None = None) -> Learner:
    """A learner whose work is to be counted: without weights or memory, unless it is so small that the
    processor is the faster device. With its first ReLU the meta device imports torch's compiler, which takes
    a second and more."""
    learner = on_meta(scenario, folder, dataset)
    numbers = sum(p.numel() for part in learner.parts.values() for p in part.parameters())
    if not learner.counts_alike_on_cpu or numbers > SMALL:
        return learner
    return load(scenario, folder, torch.device("cpu"), torch.float32, dataset)


def on_meta(scenario: Scenario, folder: Path, dataset: Dataset | None = None) -> Learner:
    """Without weights or memory, for counting."""
    return load(scenario, folder, torch.device("meta"), torch.float32, dataset)
