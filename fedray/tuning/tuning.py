"""What every tuning offers: which numbers of a model train, which travel, which stay at home, and the
files."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from fedray.learners.learner import Learner
from fedray.scenario.base import Refused
from fedray.scenario.tuning_section import TuningSection
from fedray.transport.buffer import Layout, safetensors_bytes


@dataclass(frozen=True)
class Tuned:
    """A model's numbers, by the name of each tensor."""

    travelling: dict[str, Tensor]  # the parameters that train, then buffers that only travel
    home: dict[str, Tensor]  # what stays with its client: buffers, then parameters that train

    @property
    def trained_names(self) -> list[str]:
        """Of the parameters."""
        everything = {**self.home, **self.travelling}
        return [name for name, t in everything.items() if isinstance(t, nn.Parameter)]

    @property
    def home_parameters(self) -> int:
        """Numbers that train and stay with their client."""
        return sum(t.numel() for t in self.home.values() if isinstance(t, nn.Parameter))

    @property
    def home_numbers(self) -> int:
        """All that stay with their client."""
        return sum(t.numel() for t in self.home.values())


class Tuning(ABC):
    """Chooses what trains.

    Args:
        section: the scenario's `tuning`.
        seed: the scenario's, for numbers that are drawn.
        frozen: parts of parameters' names; those that have one stay as they are and do not travel.

    A tuning of one's own that trains the biases alone:

        class Biases(fedray.Tuning):
            def select(self, learner):
                parts = learner.parts.items()
                named = {f"{part}.{name}": p for part, m in parts for name, p in m.named_parameters()}
                return {name: p for name, p in named.items() if name.endswith(".bias")}
    """

    Section: ClassVar[type[TuningSection]] = TuningSection

    def __init__(self, section: Any, seed: int, frozen: Sequence[str] = ()) -> None:
        self.section = section
        self.seed = seed
        self.frozen = frozen

    @abstractmethod
    def select(self, learner: Learner) -> dict[str, nn.Parameter]:
        """The parameters that train, by the names that they have in a file. It may add parameters to the
        model.

        Raises:
            Refused: for names that nothing in the model has.
        """

    def apply(self, learner: Learner) -> Tuned:
        """Marks what trains, and says what travels of it.

        Raises:
            Refused: for names that nothing in the model has.
        """
        chosen = self.select(learner)
        for name, parameter in chosen.items():
            parameter.requires_grad_(not any(part in name for part in self.frozen))
        chosen = {name: p for name, p in chosen.items() if p.requires_grad}
        if not chosen:
            raise Refused(
                "tuning.kind", f"{self.section.kind}, which trains no weight of this model", "one that does"
            )
        learner.refuse_tuning()
        buffers = learner.travelling_buffers()
        local = self._local({**chosen, **buffers}, learner)
        learner.local_names = frozenset(local)
        travelling = {name: t for name, t in {**chosen, **buffers}.items() if name not in local}
        if local and not travelling:
            raise Refused("tuning.local", "all that trains", "patterns that leave something to travel")
        return Tuned(travelling, {name: t for name, t in {**buffers, **chosen}.items() if name in local})

    def client_part(self, layout: Layout, client: int) -> Tensor | None:
        """[numel] bool: which of the travelling numbers a client has; None: all."""
        return None

    def left_out(self, layout: Layout) -> tuple[int, ...]:
        """Numbers that clients of each kind do not have, which clients take in turn."""
        return (0,)

    def base_weights(self, learner: Learner, layout: Layout) -> list[Tensor]:
        """The frozen weights to which a rule adds what adapters have learnt, in the layout's order."""
        raise NotImplementedError(f"{type(self).__name__} has no adapters")

    @property
    def base_scale(self) -> float:
        """By which a change of base weights that travels is multiplied."""
        return 1.0

    def batched(
        self, learner: Learner, places: Mapping[str, slice], weights: Tensor, gradients: Tensor
    ) -> AbstractContextManager[None]:
        """Inside, a step of the learner is that of K clients at once; of a Section that says
        `trains_in_gangs`.

        Args:
            learner: to which this tuning was applied.
            places: where each tensor that trains is among a client's numbers, by its name.
            weights: [K, n], each client's numbers that train.
            gradients: [K, n], to which the gradients are added.
        """
        raise NotImplementedError(f"{type(self).__name__} trains one client at a time")

    def export(self, learner: Learner, layout: Layout, folder: Path, adapter: bool = True) -> None:
        """The result, as the learner holds it, in its ecosystem's own files.

        Args:
            learner: holds what was learnt.
            layout: of what travels.
            folder: is made where it is not there.
            adapter: whether an adapter is all that was learnt, so that it gets files of its own.
        """
        folder.mkdir(parents=True, exist_ok=True)
        learner.save(folder)

    def export_files(self, learner: Learner, layout: Layout) -> dict[str, int]:
        """Names and exact bytes of the files that hold what was trained, without writing them. The first is
        the one that others read."""
        tensors = zip(layout.names, layout.shapes, strict=True)
        entries = {learner.name_in_file(name): (layout.precision, shape) for name, shape in tensors}
        return {learner.weights_file: safetensors_bytes(entries)}

    def base_files(self, learner: Learner) -> dict[str, int]:
        """The same where a rule changes base weights."""
        raise NotImplementedError(f"{type(self).__name__} has no adapters")

    def _local(self, named: Mapping[str, Tensor], learner: Learner) -> set[str]:
        """Those names of what would travel that stay at home: by `local`, and by the learner itself."""
        patterns = [*self.section.local_patterns, *learner.home]
        for pattern in self.section.local_patterns:
            if not any(fnmatchcase(name, pattern) for name in named):
                expected = f"a pattern that names weights that train, such as {next(iter(named))!r}"
                raise Refused("tuning.local", repr(pattern), expected)
        local = {name for name in named if any(fnmatchcase(name, pattern) for pattern in patterns)}
        if self.section.keeps_norms:
            norms = normalization(learner)
            own = {name for name, tensor in named.items() if id(tensor) in norms}
            if not own:
                expected = "a model whose normalization layers train, or other patterns"
                raise Refused("tuning.local", "norms, of which this model has none", expected)
            local |= own
        return local


def normalization(learner: Learner) -> set[int]:
    """The ids of the parameters and buffers of a model's normalization layers: torch's, and others that are
    called so, such as transformers' LlamaRMSNorm."""
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    modules = (module for part in learner.parts.values() for module in part.modules())
    layers = [m for m in modules if isinstance(m, kinds) or type(m).__name__.endswith("Norm")]
    tensors = (t for m in layers for t in (*m.parameters(recurse=False), *m.buffers(recurse=False)))
    return {id(tensor) for tensor in tensors}
