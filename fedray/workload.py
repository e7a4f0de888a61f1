"""Work known before it is done: FLOPs counted once on meta tensors, bytes from the buffer's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedray.learners.bases import Base, locate
from fedray.network.clock import Work
from fedray.scenario.scenario import Scenario


@dataclass(frozen=True)
class Workload:
    parameters: int  # of the parts a tuning may train or must run
    trainable_parameters: int
    payload_bytes: int
    flops_per_sample: float
    export_files: dict[str, int]

    def of(self, scenario: Scenario, samples: Sequence[int]) -> Work:
        """The steps' work where client k holds `samples[k]` samples. Aggregating takes a subtraction, a multiplication
        and an addition a parameter and update."""
        return Work(
            train_flops=lambda client: self.flops_per_sample * sum(scenario.training.batches(samples[client])),
            payload_bytes=self.payload_bytes,
            aggregate_flops=lambda updates: 3.0 * self.trainable_parameters * updates,
        )


def measure(scenario: Scenario, folder: Path) -> Workload:
    """Counts a scenario's model on the meta device: no weights, no memory.

    Raises:
        Refused: for a base model, tuning targets or a judge that are not there.
    """
    from fedray.evaluation.evaluate import verify

    verify(scenario, folder)
    base = locate(scenario.model.base, folder)
    asked = (scenario.model.model_dump_json(), scenario.tuning.model_dump_json(), scenario.payload, base)
    if asked not in _counted:  # a sweep's variants often ask the same
        _counted[asked] = _count(scenario, base)
    return _counted[asked]


_counted: dict[tuple[str, str, str, Base], Workload] = {}


def _count(scenario: Scenario, base: Base) -> Workload:
    from torch.utils.flop_counter import FlopCounterMode

    from fedray.learners.text_to_image import TextToImage
    from fedray.parameters import Layout
    from fedray.tuning.tunings import apply, export_files

    learner = TextToImage.on_meta(scenario.model, base)
    parameters = sum(p.numel() for part in learner.parts.values() for p in part.parameters())
    named = apply(scenario.tuning, learner, scenario.seed)
    layout = Layout.of(named, scenario.payload)
    with FlopCounterMode(display=False) as counter:
        learner.loss(learner.blank_batch()).backward()
    return Workload(
        parameters=parameters,
        trainable_parameters=layout.numel,
        payload_bytes=layout.nbytes,
        flops_per_sample=float(counter.get_total_flops()),
        export_files=export_files(scenario.tuning, named, layout),
    )
