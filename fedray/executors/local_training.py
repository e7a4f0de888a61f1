"""A client's turn, wherever it runs. Nothing here knows of actors."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedray.aggregation.exact_sum import ExactSum
from fedray.aggregation.fedavg import State
from fedray.aggregation.lora import truncation
from fedray.augmentation.painter import Painter, Pictures
from fedray.data import Form, Samples, form, holdings
from fedray.executors import DataFailure, Job, TrainReport, attribute_error, refuse_infinite
from fedray.executors.holder import Holder
from fedray.executors.model import Model, as_sent, master, returned
from fedray.executors.optimizer import FlatOptimizer
from fedray.executors.spill import Kept
from fedray.randomness import generator, key
from fedray.scenario.tuning import Lora
from fedray.transport import compression as transforms
from fedray.transport.buffer import Layout

T = TypeVar("T")
Ended = tuple[Tensor | None, State]  # what a client sends beside its update, and its new state
Generated = Pictures | Mapping[int, np.ndarray] | None
AUDITED_AT_ONCE = 500  # samples
SMALL = 1 << 22  # numbers


class Audited(NamedTuple):
    """A client's data under the global model."""

    client: int
    samples: int
    loss: float  # its local learning error
    gradient: np.ndarray  # [trained] fp32


class ClientWork(Holder):
    """Runs any client's turn. The encoded samples of a client are kept where they are dear; nothing else
    outlives a turn."""

    def __init__(
        self,
        job: Job,
        device: torch.device,
        site: str | None = None,
        own: tuple[Samples, Mapping[int, np.ndarray]] | None = None,
    ) -> None:
        """Of the clients' samples as the scenario deals them (at this site), or of some other samples of its
        `own`."""
        self.job, self.model = job, Model(job, device)
        super().__init__(self.model.learner, *(own or holdings(job.scenario, job.folder, site)))
        self.rule = self.model.rule
        self._truncations: dict[int, Tensor] = {}  # by rank
        self._update, self._total = torch.zeros(self.rule.sent), cast(Tensor | None, None)
        master = self.model.flat.master
        assert master.grad is not None
        self._optimizer = FlatOptimizer(job.scenario.training.optimizer, master.data, master.grad)

    def initial(self) -> tuple[np.ndarray, Layout, Kept]:
        """The buffer before the first round, its layout and the server's state, the same from every worker:
        the model, and zeros for what the rule adds."""
        layout = self.model.flat.layout
        numbers = F.pad(self.model.flat.all.detach().cpu(), (0, self.rule.received - layout.numel)).clone()
        sent, kept = as_sent(layout, numbers)
        return sent, layout, kept

    def train(self, round: int, client: int, buffer: np.ndarray) -> tuple[np.ndarray, TrainReport]:
        """One turn of a relay (huang2023, Sec. IV, Step 2). A client that fails hands on what it was
        given."""

        def turn() -> tuple[np.ndarray, TrainReport]:
            layout = self.model.flat.layout
            report, _ = self._turn(round, client, layout.view(buffer).float(), {})
            new = self.model.flat.send()
            with summable():
                ExactSum.refuse_unsummable(layout.view(new), layout.view(buffer))
            return new, report

        return self._attempt(round, client, turn, buffer)

    def train_apart(self, round: int, client: int, start: np.ndarray) -> tuple[np.ndarray, TrainReport]:
        """A turn whose weights do not travel: from numbers [numel] fp32 to numbers [numel] fp32, or `start`
        of one that fails."""

        def turn() -> tuple[np.ndarray, TrainReport]:
            report, _ = self._turn(round, client, torch.from_numpy(start), {})
            return self.model.flat.all.detach().cpu().numpy().copy(), report

        return self._attempt(round, client, turn, start)

    def add(
        self,
        base: np.ndarray,
        state: Kept,
        round_weight: int,
        end: np.ndarray,
        reports: Sequence[TrainReport],
    ) -> ExactSum:
        """The update of a relay that ended with the buffer `end`, a model and no difference, which weighs
        what its clients that trained hold: one chain's end is the next global model."""
        layout = self.model.flat.layout
        total = ExactSum.zero(layout.numel, round_weight)
        if weight := sum(
            self.job.scenario.aggregation.weight(r.samples) for r in reports if r.failure is None
        ):
            ours = master(layout, base, state)
            total.add(returned(layout.view(end), layout.view(base), ours), weight, ours)
        return total

    def train_all(
        self,
        base: np.ndarray,
        server: Kept,
        round_weight: int,
        round: int,
        clients: Sequence[int],
        states: Sequence[Kept | None],
        total: ExactSum | None = None,
        generated: Generated = None,
    ) -> tuple[ExactSum, list[TrainReport], list[Kept | None]]:
        """The turns of clients that all start from `base`, one after another, and the sum of their updates,
        added to `total` where there is one. A client that fails is not added, and keeps the state it had.
        `generated` pictures join each one's own samples: the same for all, or by client the labels of those
        it paints itself. `server`: its state, where Scenario.adds_to_master asks for it."""
        ours = master(self.model.flat.layout, base, server)
        total = total or self._empty(round_weight)
        reports, new_states = [], []
        for client, state in zip(clients, states, strict=True):
            attempt = partial(self._contribute, total, base, ours, round, client, state, generated)
            new, report = self._attempt(round, client, attempt, state)
            reports.append(report)
            new_states.append(new)
        return total, reports, new_states

    def _empty(self, round_weight: int) -> ExactSum:
        """A sum of nothing. Small ones have the memory of the round before, which has been passed on: fresh
        pages would cost more than the sums."""
        if self._total is None:
            self._total = ExactSum.zero(self.rule.summed, round_weight).total
        if len(self._total) > SMALL:
            total, self._total = self._total, None
            return ExactSum(total, 0, round_weight)
        return ExactSum(self._total.zero_(), 0, round_weight)

    def audit(self, client: int, buffer: np.ndarray) -> Audited | None:
        """How the model in a buffer does on all of a client's own samples: its mean loss, and the loss's
        gradient. None for a client whose samples cannot be read."""
        self.model.receive(buffer)
        learner, gradient, n = self.model.learner, self._optimizer.gradient, len(self.held[client])
        try:
            shard, loss = self.shard(client), 0.0
        except DataFailure:
            return None
        gradient.zero_()
        for start in range(0, n, AUDITED_AT_ONCE):
            indices = np.arange(start, min(start + AUDITED_AT_ONCE, n))
            part = learner.loss(learner.draw(shard, indices, torch.Generator())) * (len(indices) / n)
            part.backward()
            loss += float(part.detach())
        return Audited(client, n, loss, gradient.cpu().numpy().copy())

    def gathered(
        self, total: ExactSum | None, round_weight: int
    ) -> tuple[Callable[[Tensor], ExactSum], Tensor]:
        """A host's sum with its counts as one float64 tensor, for an all-reduce, and what makes a sum of the
        result. Integers below 2^53 and the sums themselves add up exactly in any order."""
        mine = total or ExactSum.zero(self.rule.summed, round_weight)
        counts = torch.tensor([mine.weight, mine.added], dtype=torch.float64)

        def whole(numbers: Tensor) -> ExactSum:
            weight, added = numbers[-2:].tolist()
            return ExactSum(numbers[:-2], int(weight), round_weight, int(added))

        return whole, torch.cat([mine.total, counts])

    def export(self, buffer: np.ndarray, state: Kept, folder: Path) -> None:
        self.model.export(buffer, state, folder)

    def _attempt(
        self, round: int, client: int, turn: Callable[[], tuple[T, TrainReport]], otherwise: T
    ) -> tuple[T, TrainReport]:
        """A turn; what its data make impossible is reported, and anything else ends the round."""
        try:
            with attribute_error(round, "training", client):
                return turn()
        except DataFailure as e:
            return otherwise, TrainReport(
                round, client, len(self.held[client]), 0, math.nan, failure=str(e), stage=e.stage
            )

    def _contribute(
        self,
        total: ExactSum,
        base: np.ndarray,
        ours: Tensor,
        round: int,
        client: int,
        state: Kept | None,
        generated: Generated,
    ) -> tuple[Kept | None, TrainReport]:
        """One turn from `base`, added to `total`; the client's new state. What a low rank leaves out is zero
        in the result: `ours` are the server's numbers [received] fp32."""
        section, layout, mine = self.job.scenario.aggregation, self.model.flat.layout, self._numbers(client)
        kept = {name: torch.from_numpy(np.array(value)) for name, value in (state or {}).items()}
        update, received, n = self._update, layout.view(base).float(), layout.numel
        report, end = self._turn(round, client, received, kept, generated)
        beside, new = end()
        torch.sub(self.model.flat.all.detach().cpu(), received[:n], out=update[:n])
        if beside is not None:
            update[n:] = beside
        with summable():
            # the difference is sent in the payload's precision
            if section.transforms or layout.dtype != torch.float32:
                ExactSum.refuse_unsummable(update)
                seed = key(self.job.scenario.seed, round, client, "transforms")
                own = update[mine] + kept.get("unsent", 0.0)
                update[mine], unsent = transforms.through(section.transforms, own, layout.dtype, seed)
                if transforms.feeds_back(section.transforms):
                    new["unsent"] = unsent
                if isinstance(mine, Tensor):
                    update[~mine] = -ours[: len(update)][~mine]
            total.add(self.rule.contribution(ours, update), section.weight(report.samples))
        return {name: value.cpu().numpy() for name, value in new.items()} or None, report

    def _turn(
        self, round: int, client: int, received: Tensor, state: State, generated: Generated = None
    ) -> tuple[TrainReport, Callable[[], Ended]]:
        """One client's training from the numbers it `received` [received] fp32. Its report, and what asks the
        rule for what else it sends and keeps."""
        scenario, training, learner, flat = (
            self.job.scenario,
            self.job.scenario.training,
            self.model.learner,
            self.model.flat,
        )
        layout = flat.layout
        shard, held = self.shard(client), len(self.held[client])
        shard, samples = self._with_pictures(shard, held, client, generated)
        self.model.load(received)
        received = received.to(flat.all.device)
        state = {name: value.to(flat.all.device) for name, value in state.items()}
        # the rest is zero, and then its gradient is too
        if isinstance(mine := self._numbers(client), Tensor):
            mine = mine.to(flat.all.device)
            flat.all[~mine] = 0
            received = received.where(F.pad(mine, (0, len(received) - layout.numel), value=True), 0)
        start = received[: layout.trained]
        adjust = self.rule.begin(start, received[layout.numel :], state)
        seed_dropout(flat.all.device, key(scenario.seed, round, client, "dropout"))
        draws = torch.Generator().manual_seed(key(scenario.seed, round, client, "noise"))
        # fp16 gradients underflow: the loss is scaled, and a step whose scaled gradients overflow is left
        # out.
        scale = 1024.0 if training.precision == "fp16" else 1.0
        optimizer, gradient = self._optimizer, self._optimizer.gradient
        optimizer.restart()
        losses, seen, steps = [], 0, 0  # each batch's loss times its samples
        for step, indices in enumerate(
            batches(training.batches(samples), samples, generator(scenario.seed, round, client, "batches"))
        ):
            gradient.zero_()
            loss = learner.loss(learner.draw(shard, indices, draws))
            refuse_infinite(value := float(loss.detach()), step, client)
            losses.append(value * len(indices))
            (loss * scale if scale != 1 else loss).backward()
            if scale != 1:
                gradient.div_(scale)
            if not optimizer.clipped(training.clip):
                if scale == 1:
                    raise DataFailure("training", f"the gradient of step {step + 1} is not finite", client)
                scale /= 2
                continue
            if adjust is not None:
                adjust(gradient, flat.master.data)
            optimizer.step()
            seen += len(indices)
            steps += 1
        report = TrainReport(
            round, client, held, seen, sum(losses) / max(1, training.trained(samples)), steps=steps
        )
        rate = training.optimizer.learning_rate
        return report, lambda: self.rule.end(start, flat.master.data, max(1, steps), rate, state)

    def _numbers(self, client: int) -> Tensor | slice:
        """Which numbers of the buffer a client has: all, or those of its own rank [numel] bool on the CPU."""
        tuning = self.job.scenario.tuning
        if not isinstance(tuning, Lora) or (rank := tuning.rank_of(client)) == tuning.rank:
            return slice(None)
        if rank not in self._truncations:
            self._truncations[rank] = truncation(self.model.flat.layout, rank)
        return self._truncations[rank]

    def _with_pictures(self, shard: Any, held: int, client: int, generated: Generated) -> tuple[Any, int]:
        """A client's own samples with those that were generated, and how many there are."""
        if generated is None:
            return shard, held
        pictures = (
            self._painter.paint(client, generated[client]) if isinstance(generated, Mapping) else generated
        )
        theirs = pictures.samples(self._form)
        return shard.joined(self.model.learner.encode(theirs, np.arange(len(pictures)))), held + len(pictures)

    @cached_property
    def _painter(self) -> Painter:
        """Of a client that paints for itself."""
        scenario = self.job.scenario
        assert scenario.augmentation is not None
        return Painter(
            scenario.augmentation, self.job.folder, self._form, scenario.seed, self.model.flat.all.device
        )

    @cached_property
    def _form(self) -> Form:
        return form(self.job.scenario.data, self.job.folder)  # of image folders, a look at all of them


@contextmanager
def summable(client: int | None = None) -> Iterator[None]:
    """What cannot be summed is its client's failure."""
    try:
        yield
    except ValueError as e:
        raise DataFailure("training", f"{e} (a smaller learning rate?)", client) from None


def batches(sizes: Sequence[int], samples: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Index arrays of one turn: the samples in a fresh order each time they have all been used."""
    stream: list[int] = []
    out = []
    for size in sizes:
        while len(stream) < size:
            stream += rng.permutation(samples).tolist()
        out.append(np.array(stream[:size]))
        stream = stream[size:]
    return out


def seed_dropout(device: torch.device, seed: int) -> None:
    """What dropout draws from. `torch.manual_seed` asks every backend there might be, each time."""
    torch.random.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
