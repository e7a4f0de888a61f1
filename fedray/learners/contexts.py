"""What a learner is given: to be built, to sample, and to be evaluated."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fedray.data import Dataset, DatasetInfo, Samples
from fedray.data.census import label_counts
from fedray.data.clients import held_out as held_out_samples
from fedray.data.clients import holdings, split_test_set
from fedray.randomness import SERVER, key
from fedray.scenario.augment import AugmentSection
from fedray.scenario.evaluation import Evaluation as EvaluationSection
from fedray.scenario.scenario import Scenario

CPU = torch.device("cpu")


@dataclass(frozen=True)
class LearnerContext:
    """What a learner is built from beside its own section.

    Attributes:
        dataset: what samples are like; of no meaning to a learner that is not built for its data.
        folder: where relative paths of the section start.
        seed: the scenario's.
        device: where weights and batches are; "meta" to count work, where nothing has memory.
        compute: the dtype that is computed in.
        base_precision: the scenario's `runtime.base_precision`.
        devices: that a frozen base's network is spread over; none: it is on `device`, which is the first.
        in_stages: whether it is cut in a split, so that no weight may be two stages'.
        augment: the scenario's `data.augment`, of samples that are trained on.
        in_buckets: whether images that are trained on are of several shapes.
    """

    dataset: DatasetInfo
    folder: Path = Path()
    seed: int = 0
    device: torch.device = CPU
    compute: torch.dtype = torch.float32
    base_precision: str | None = None
    devices: tuple[torch.device, ...] = ()
    in_stages: bool = False
    augment: tuple[AugmentSection, ...] = ()
    in_buckets: bool = False

    def with_dataset(self, dataset: DatasetInfo) -> "LearnerContext":
        return replace(self, dataset=dataset)

    @contextmanager
    def initial_weights(self) -> Iterator[None]:
        """Inside, what torch draws comes from the seed alone, and on the meta device nothing is made."""
        device = torch.device("meta") if self.device.type == "meta" else nullcontext()
        with torch.random.fork_rng(devices=[]), device:
            torch.manual_seed(key(self.seed, 0, SERVER, "weights"))
            yield


@dataclass(frozen=True)
class Sampling:
    """How images are sampled, or texts.

    Attributes:
        steps: inference steps of an image.
        guidance_scale: of classifier-free guidance (Ho and Salimans 2022).
        negative_prompt: what guidance leads away from.
        new_tokens: written after each prompt.
        temperature: that logits of tokens are divided by.
        condition: the picture that a ControlNet's images follow; None: the learner's own.
        at_once: images sampled in one go; None: as many as the learner finds fit.
    """

    steps: int = 20
    guidance_scale: float = 3.0
    negative_prompt: str = ""
    new_tokens: int = 200
    temperature: float = 0.8
    condition: Image.Image | None = None
    at_once: int | None = None

    @classmethod
    def of(cls, section: EvaluationSection) -> "Sampling":
        return cls(
            steps=section.inference_steps,
            guidance_scale=section.guidance_scale,
            negative_prompt=section.negative_prompt,
            new_tokens=section.new_tokens,
            temperature=section.temperature,
        )


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluation is made with.

    Attributes:
        section: the scenario's `evaluation`.
        seed: the scenario's.
        folder: where relative paths of the section start.
        sheet: the PNG file for samples; texts go beside it, as .txt.
        dataset: the scenario's data.
        at_sites: whether training samples stay at sites and may not be opened here.
        test_indices: of so many test samples, those that are measured on.
        clients: how many there are.
        label_counts: what each client holds of each label, int [clients, labels].
        held_out: samples, and which of them `data.holdout` keeps of each client; None: it keeps none.
    """

    section: EvaluationSection
    seed: int
    folder: Path
    sheet: Path
    dataset: Dataset
    at_sites: bool
    test_indices: Callable[[int], np.ndarray]
    label_counts: Callable[[], np.ndarray]
    clients: int = 1
    held_out: Callable[[], tuple[Samples, Mapping[int, np.ndarray]]] | None = None

    @classmethod
    def of(cls, scenario: Scenario, folder: Path, sheet: Path, dataset: Dataset) -> "EvaluationContext":
        def held_out() -> tuple[Samples, Mapping[int, np.ndarray]]:
            return held_out_samples(scenario, folder, None, dataset)

        return cls(
            section=scenario.evaluation,
            seed=scenario.seed,
            folder=folder,
            sheet=sheet,
            dataset=dataset,
            at_sites=bool(scenario.sites),
            test_indices=lambda n: split_test_set(scenario, n)[1],
            clients=scenario.population.clients,
            label_counts=lambda: label_counts(*holdings(scenario, folder, None, dataset)),
            held_out=held_out if scenario.data.holdout is not None else None,
        )

    @property
    def sampling(self) -> Sampling:
        return Sampling.of(self.section)

    def test_set(self) -> tuple[Samples, np.ndarray] | None:
        """The source's test samples, and the indices of those to be measured on; None where it has none."""
        if not self.dataset.has_test_set:
            return None
        samples = self.dataset.test
        return samples, self.test_indices(len(samples))

    def real(self) -> tuple[Samples, np.ndarray]:
        """What results are compared with: the test set; where there is none, what is held out of clients'
        samples, or else all that there is."""
        samples = self.dataset.real
        if self.dataset.has_test_set or self.held_out is None:
            return samples, np.arange(len(samples))
        samples, by_client = self.held_out()
        return samples, np.sort(np.concatenate(list(by_client.values())))

    def seeds(self, n: int, purpose: str) -> list[int]:
        """Of n samples: sample i has the same noise in every round."""
        return [key(self.seed, 0, i, f"samples {purpose}") for i in range(n)]
