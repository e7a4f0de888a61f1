"""What every learner offers, and the base class of one's own. No federation in it."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from fedray.data import DatasetInfo, Samples
from fedray.learners.adapter_files import TakesAdapters
from fedray.learners.augmenting import Augments
from fedray.learners.contexts import EvaluationContext, LearnerContext
from fedray.learners.denoising import MeasuresHeldOut
from fedray.learners.generation import Generation
from fedray.learners.micro_batches import TakesMicroBatches
from fedray.learners.pictures import ImageShard
from fedray.learners.splitting import TakesSplits
from fedray.learners.stages import Stage, inputs, run, within
from fedray.randomness import SERVER, key
from fedray.scenario.base import Refused
from fedray.scenario.model_section import ModelSection
from fedray.scenario.tuning_section import TuningSection

AT_ONCE = 64  # samples of a test set that are measured in one go


class Learner(Augments, Generation, TakesAdapters, TakesSplits, TakesMicroBatches, MeasuresHeldOut):
    """A model with its data's encoding, its loss, its evaluation, its samples and its files.

    A learner of one's own says at least what its networks are (`parts`, in `__init__`), and either the `loss`
    of a batch or the `stages` that lead to one; stages are needed where the model is to be cut in a split.
    Everything else works as it is, and may be overridden: what a client's samples become (`encode`, and
    `blank_shard` with it), a step's inputs (`draw`), `metrics`. Softmax regression:

        import torch.nn.functional as F
        from torch import nn

        import fedray

        class Softmax(fedray.Learner):
            def __init__(self, section, context):
                super().__init__(section, context)
                numbers = context.dataset.channels * self.size**2
                self.linear = nn.Linear(numbers, len(context.dataset.label_names))
                self.parts = {"linear": self.linear}

            def loss(self, batch):
                images = batch.images / 127.5 - 1  # of uint8 [b, c, h, w]
                return F.cross_entropy(self.linear(images.flatten(1)), batch.labels)

    Attributes:
        parts: what a tuning may train, by name, the first one by default; frozen until a tuning says so.
        stages: the pieces of a step, from a batch's fields to `loss`; none where it cannot be cut.
        size: pixels a side of the images that it is trained on, 0 where there are none.
        caches_samples: whether a client's encoded samples are dear enough to be kept between rounds.
        weights_file: the file, of those that `save` writes, that holds what a whole training changes.
        flops_per_sample: floating-point operations of a step a sample, forwards and backwards. None: they are
            counted on the meta device; a learner that cannot run there says how many, and cannot be cut.
        counts_alike_on_cpu: whether the operators of a step are the same on the processor as on the meta
            device, so that their work may be counted there. Those of attention are not.
        home: patterns of names of parameters and buffers that stay with their client, as its state; the
            Section then says `trains_home = True`.
        groups: sections with `patterns` of names and an `optimizer`, behind those of `training.groups`.
        local_names: of what stays with its client, once the tuning has said so; where evaluation and export
            read it, these weights have their initial values.
    """

    Section: ClassVar[type[ModelSection]] = ModelSection
    parts: dict[str, nn.Module]
    stages: tuple[Stage, ...] = ()
    caches_samples: bool = False
    flops_per_sample: float | None = None
    counts_alike_on_cpu: ClassVar[bool] = False
    weights_file: ClassVar[str] = "model.safetensors"
    home: tuple[str, ...] = ()
    groups: Sequence[Any] = ()
    local_names: frozenset[str] = frozenset()

    def __init__(self, section: Any, context: LearnerContext) -> None:
        """Builds the networks; `load` sees to seed, device and freezing.

        Args:
            section: the scenario's `model`.
            context: what else it is built from.
        """
        self.section = section
        self.context = context
        self.device = context.device
        self.compute = context.compute
        self.size: int = getattr(section, "resolution", None) or context.dataset.size or 0

    @classmethod
    def load(cls, section: Any, context: LearnerContext, **options: Any) -> Self:
        """The learner with its weights: what `__init__` builds, drawn from the seed, on the device,
        frozen."""
        with context.initial_weights():
            learner = cls(section, context, **options)
        for part in learner.parts.values():
            part.to(context.device).requires_grad_(False)
        return learner

    def refuse_no_size(self) -> None:
        """Raises Refused where neither the section nor the data say how large images are."""
        if not self.size:
            raise Refused(
                "model.resolution", "nothing", "pixels a side, since these images have no size of their own"
            )

    # Training

    def refuse_tuning(self) -> None:
        """Raises Refused where what the tuning has marked to train cannot learn, on the meta device too."""

    def prepare_training(self, gradient_checkpointing: bool) -> None:
        """To be called once the tuning has said what trains."""
        for part in self.parts.values():
            part.train()
            # what is normalised by means that nothing here learns, and that do not travel
            for module in part.modules():
                if hasattr(module, "running_mean") and not any(p.requires_grad for p in module.parameters()):
                    module.eval()

    def prepare_round(self, round_number: int) -> None:
        """Called before each client's local update (in a split, at both of its ends) with its round, counted
        from 1, for a loss that changes over rounds. What it sets depends on the round alone, since a worker
        trains any client in any order. Evaluation calls it never."""

    def travelling_buffers(self) -> dict[str, Tensor]:
        """Buffers that travel beside what trains, by `part.name`: running means and variances of modules
        whose own parameters train. Every local update begins with the initial values of all others. To be
        called once the tuning has said what trains."""
        buffers: dict[str, Tensor] = {}
        for part, whole in self.parts.items():
            for name, module in whole.named_modules():
                if any(p.requires_grad for p in module.parameters(recurse=False)):
                    means = {k: b for k, b in module.named_buffers(recurse=False) if k.startswith("running_")}
                    buffers |= {f"{part}.{name}.{k}": b for k, b in means.items()}
        return buffers

    def encode(self, samples: Samples, indices: np.ndarray) -> Any:
        """A client's samples as `draw` takes them: images as they are, in the learner's size. Raises
        ValueError for one that cannot be read."""
        return ImageShard.of(samples, indices, self.size, self.device)

    def encode_client(self, client: int, samples: Samples, indices: np.ndarray) -> Any:
        """All that a client trains on. Here: its own samples, encoded.

        Args:
            client: by number.
            samples: of all clients.
            indices: which of them are the client's.
        """
        return self.encode(samples, indices)

    @property
    def tunable_parts(self) -> list[str]:
        """Parts that a tuning may train, its main one first."""
        return list(self.parts)

    @property
    def default_parts(self) -> list[str]:
        """Parts that train where a tuning of whole parts names none. Here: the main one."""
        return self.tunable_parts[:1]

    def encode_flops(self) -> float:
        """Floating-point operations of encoding a sample, where that is done once and kept. To be called on
        the meta device, once the tuning has said what trains."""
        return 0.0

    def preparation_flops(self) -> float:
        """Floating-point operations that a client spends once, however many samples it has. To be called on
        the meta device, once the tuning has said what trains."""
        return 0.0

    def experience(self, shard: Any, round_number: int, client: int) -> Any:
        """What a local update draws its batches from, with as many samples as the shard. It is made when the
        weights that the client has received are in the learner, and before its first step, for a learner
        whose samples depend on them, such as what an agent lives through. It leaves the weights as they are,
        and every draw comes from the scenario's seed, the round and the client. Raises ValueError where none
        can be made. A learner that has one is not cut in a split. Here: the shard as it is.

        Args:
            shard: what `encode_client` gave.
            round_number: from 1.
            client: by number.
        """
        return shard

    def experience_flops(self) -> float:
        """Floating-point operations of `experience` a sample of the client's, in every local update. To be
        called on the meta device, once the tuning has said what trains."""
        return 0.0

    def draw(self, shard: Any, indices: np.ndarray, generator: torch.Generator) -> Any:
        """One step's inputs: a tensor of b samples in its first dimension, or an object whose fields are such
        tensors, or None. A field `weight` [b] says what each sample counts in the loss (see
        `losses.weighted_mean`); it never leaves its client, so that a split of such a learner has a tail.
        Here: these samples of a shard that is a tensor, or a dataclass of tensors.

        Args:
            shard: what `encode` gave, or `experience`.
            indices: [b], of samples in the shard.
            generator: every draw comes from it, on the CPU: the same on every device.
        """
        i = torch.from_numpy(indices).to(self.device)
        if isinstance(shard, Tensor):
            return shard[i]
        return replace(shard, **{field.name: getattr(shard, field.name)[i] for field in fields(shard)})

    def blank_shard(self, n: int) -> Any:
        """What `encode` gives for n samples with nothing in them, on the learner's device."""
        images = torch.zeros(
            n, self.context.dataset.channels, self.size, self.size, dtype=torch.uint8, device=self.device
        )
        return ImageShard(images, torch.zeros(n, dtype=torch.long, device=self.device))

    def blank_batch(self) -> tuple[Any, int]:
        """A batch for counting work, and how many samples it stands for: two, as what normalises over a batch
        wants more than one. It is drawn from a blank shard; to be overridden where `draw` does not run on the
        meta device."""
        return self.draw(self.blank_shard(2), np.arange(2), torch.Generator()), 2

    def loss(self, batch: Any) -> Tensor:
        """What all its stages together make of a batch: the mean over its samples, each of which counts the
        same, or its weight."""
        return run(self.stages, inputs(batch))["loss"]

    def staged(self, pieces: Sequence[Stage], loss: Stage) -> tuple[Stage, ...]:
        """A step: the network's pieces in the precision that is computed in, the loss in fp32."""
        return (*within(self.autocast, pieces), loss)

    def autocast(self) -> AbstractContextManager[None]:
        return (
            nullcontext() if self.compute == torch.float32 else torch.autocast(self.device.type, self.compute)
        )

    # Evaluation and samples

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, nothing is dropped out, and no mean is learnt."""
        with in_evaluation(*self.parts.values()):
            yield

    def evaluate(self, context: EvaluationContext) -> dict[str, float]:
        """Metrics by name, each beginning with `eval_`: those of `measure` over the test set where the
        section evaluates on one; samples of a learner that generates are written beside them."""
        metrics: dict[str, float] = {}
        if self.section.evaluates_on_test_set and (test_set := context.test_set()) is not None:
            metrics = self.measure(*test_set)
        self.write_samples(context)
        return metrics

    @torch.no_grad()
    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, float]:
        """Metrics over these samples of a test set: the mean loss, under the same draws each time, and
        `metrics`."""
        generator = torch.Generator().manual_seed(key(self.context.seed, 0, SERVER, "test draws"))
        totals: dict[str, float] = {}
        with self.evaluating():
            for start in range(0, len(indices), AT_ONCE):
                chunk = indices[start : start + AT_ONCE]
                batch = self.draw(self.encode(samples, chunk), np.arange(len(chunk)), generator)
                means = {"eval_loss": float(self.loss(batch))} | self.metrics(batch)
                for name, value in means.items():
                    totals[name] = totals.get(name, 0.0) + value * len(chunk)
        return {name: total / len(indices) for name, total in totals.items()} | {
            "eval_samples": float(len(indices))
        }

    def metrics(self, batch: Any) -> dict[str, float]:
        """What is measured of a batch of the test set beside its loss, by names that begin with `eval_`; each
        is averaged over the samples."""
        return {}

    # Files

    def save(self, folder: Path) -> None:
        """The whole model in its ecosystem's own files. Here: every part's state dict as safetensors, under
        its own names where there is one part, otherwise under `part.name`."""
        from safetensors.torch import save_file

        tensors = {name: t.detach().clone().contiguous() for name, t in self._state().items()}
        save_file(tensors, str(folder / self.weights_file), metadata={"format": "pt"})

    def name_in_file(self, name: str) -> str:
        """What `weights_file` calls a tensor, given as `part.name`. Here: its name in the part."""
        return name.split(".", 1)[1]

    def load_weights(self, folder: Path) -> None:
        """Reads what `save` wrote. Raises an error of any kind where that is not whole."""
        from safetensors.torch import load_file

        stored = load_file(folder / self.weights_file)
        own = self._state()
        if stored.keys() != own.keys():
            others = ", ".join(sorted(stored.keys() ^ own.keys())[:5])
            raise ValueError(f"{folder / self.weights_file}: got other tensors than the model has: {others}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(stored[name])

    @classmethod
    def from_export(cls, section: Any, context: LearnerContext, folder: Path) -> Self:
        """The learner that was saved in `folder`. Raises an error of any kind where that is not whole."""
        learner = cls.load(section, context)
        learner.load_weights(folder)
        return learner

    @classmethod
    def exported_dataset(cls, section: Any, folder: Path) -> DatasetInfo | None:
        """What the files in `folder` say of the data that the saved learner was built for; None where they do
        not, and the data themselves have to be asked."""
        return None

    @classmethod
    def notes(cls, section: Any, folder: Path, samples: Samples, tuning: TuningSection) -> list[str]:
        """What a person should know of these training samples before it trains.

        Args:
            section: the learner's.
            folder: where its relative paths start.
            samples: that are trained on.
            tuning: how.
        """
        return []

    def _state(self) -> dict[str, Tensor]:
        states = {part: module.state_dict(keep_vars=False) for part, module in self.parts.items()}
        if len(states) == 1:
            return dict(next(iter(states.values())))
        return {f"{part}.{name}": t for part, state in states.items() for name, t in state.items()}


@contextmanager
def in_evaluation(*modules: nn.Module) -> Iterator[None]:
    training = [(inner, inner.training) for module in modules for inner in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for inner, was in training:
            inner.training = was
