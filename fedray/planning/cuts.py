"""What a cut through a learner costs: counted once a stage on the meta device; a side's part is a sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fedray.data import Dataset
from fedray.scenario.base import Refused
from fedray.scenario.scenario import Scenario
from fedray.steps import BACK, SERVED

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedray.learners.cut import Cut
    from fedray.learners.learner import Learner
    from fedray.learners.stages import Stage
    from fedray.transport.buffer import Layout
    from fedray.transport.messages import NamedTensors
    from fedray.tuning.tuning import Tuned


@dataclass(frozen=True)
class Crossing:
    """One tensor that crosses a cut."""

    names: tuple[str, ...]
    shape: tuple[int, ...]  # of a sample
    dtype: str


@dataclass(frozen=True)
class CutWork:
    """Sides are `client` and `server`."""

    cut: str
    tail: str | None
    flops: dict[str, float]  # of each pass, for a sample
    crossings: dict[str, list[Crossing]]  # smashed, and in U-shape features; their gradients are alike
    bytes: dict[str, list[int]]  # of each crossing, for 0, 1, 2, ... samples
    parameters: dict[str, int]  # that each side holds
    trainable: dict[str, int]  # that each side trains
    part_bytes: int  # the client's part, on the air
    inputs: tuple[str, ...]  # that cross as they are
    withheld: tuple[str, ...]  # inputs that the server's stages would take and that never cross
    # that cross although the server's first stage does not need them, or its last does not give them
    skips: tuple[str, ...]
    home_at_server: tuple[str, ...] = ()  # names of what would stay at home, and is the server's
    # channel uses of a crossing for a sample, where it goes on the air as it is: it has no bytes then
    symbols: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.cut + (f" .. {self.tail}" if self.tail else "")

    @property
    def side_flops(self) -> dict[str, float]:
        """For a sample."""
        server = sum(flops for stage, flops in self.flops.items() if stage in SERVED)
        return {"client": sum(self.flops.values()) - server, "server": server}


def refusal(scenario: Scenario, cut: CutWork) -> Refused | None:
    """Why a scenario does not allow a cut's skips, or what goes on the air, if so."""
    if cut.symbols and (reason := _refusal_on_air(scenario, cut)):
        return reason
    if scenario.split.skips == "home" and cut.skips:
        got = f"home, with a cut ({cut.name}) that {', '.join(cut.skips)} cross"
        return Refused(
            "topology.skips", got, "send, or a cut whose tail begins where its front ends, on the way up"
        )
    if scenario.split.gradients == "none" and cut.bytes["gradients"][-1]:
        got = f"none, with a cut ({cut.name}) before which some of the clients' weights train"
        expected = "send, or an earlier cut, or tuning.kind partial with patterns of the server's weights"
        return Refused("topology.gradients", got, expected)
    if cut.home_at_server:
        got = f"{cut.home_at_server[0]}, which the server trains with this cut ({cut.name})"
        return Refused("tuning.local", got, "patterns of weights of the clients' own stages")
    if cut.withheld:
        got = f"{cut.name}, behind which the server would need {' and '.join(cut.withheld)} of each sample"
        return Refused("topology.tail", got, "a tail, with which they stay and count at their client")
    defence = scenario.split.defence
    if defence is not None and defence.needs_client_weights and not cut.bytes["gradients"][-1]:
        got = f"{defence.kind} at a cut ({cut.name}) before which nothing trains"
        return Refused(
            "topology.defence", got, "noise, or a later cut: no weight of a client's shapes what it sends"
        )
    return None


def _refusal_on_air(scenario: Scenario, cut: CutWork) -> Refused | None:
    """Why a scenario does not allow that what goes up goes as symbols, if so."""
    at = f"at a cut ({cut.name}) that is a channel"
    split = scenario.split
    if not (uplink := scenario.network.uplink).carries_symbols:
        got = f"{uplink.kind}, which has no band, {at}"
        return Refused("network.uplink.kind", got, "log_distance or 3gpp, over whose bandwidth symbols go")
    if split.compression:
        expected = "none: symbols are no bytes that a code could shorten"
        return Refused("topology.compression", f"{split.compression[0].kind} {at}", expected)
    if split.defence is not None:
        expected = "none: the channel's own noise is what activations get"
        return Refused("topology.defence", f"{split.defence.kind} {at}", expected)
    if scenario.incentive is not None:
        expected = "none: bids reckon with bytes, and not with symbols"
        return Refused("incentive.kind", f"{scenario.incentive.kind} {at}", expected)
    return None


def all_cuts(scenario: Scenario, folder: Path, dataset: Dataset | None = None) -> list[CutWork]:
    """Every cut that a split scenario allows where it says auto. `dataset`: its data, where they are open
    already.

    Raises:
        Refused: where there is none.
    """
    from fedray.learners.cut import cuts
    from fedray.learners.learners import for_counting
    from fedray.transport.buffer import Layout
    from fedray.tuning.tunings import tuning

    learner = for_counting(scenario, folder, dataset)
    tunes = tuning(scenario.tuning, scenario.seed, scenario.aggregation.frozen)
    tuned = tunes.apply(learner)
    layout = Layout.of(tuned.travelling, scenario.payload)
    result = cut_work(scenario, learner, tuned, layout, cuts(learner.stages, scenario.split))
    allowed = [cut for cut in result if refusal(scenario, cut) is None]
    if not allowed and (reason := refusal(scenario, result[-1])):
        raise reason
    return allowed


def cut_work(
    scenario: Scenario, learner: Learner, tuned: Tuned, layout: Layout, cuts: Sequence[Cut]
) -> list[CutWork]:
    """What each of these cuts costs.

    Args:
        scenario: whose.
        learner: one for counting.
        tuned: what travels of it, and what stays at home.
        layout: of what travels.
        cuts: to be counted.
    """
    counted = _counted(learner)
    staged = {id(t) for module in _modules(learner.stages) for t in module.parameters()}
    # encodes samples
    elsewhere = sum(
        t.numel() for part in learner.parts.values() for t in part.parameters() if id(t) not in staged
    )

    return [_cut_work(scenario, cut, counted, elsewhere, _client_names(cut, tuned, layout)) for cut in cuts]


class ClientNames(NamedTuple):
    """What a cut leaves at the client of a model's numbers."""

    part_bytes: int  # of its part of what travels
    home_at_server: tuple[str, ...]  # what would stay at home, and is the server's


def _client_names(cut: Cut, tuned: Tuned, layout: Layout) -> ClientNames:
    modules = _modules((*cut.front, *cut.tail))
    own = {id(t) for module in modules for t in (*module.parameters(), *module.buffers())}
    part = layout.part([name for name, t in tuned.travelling.items() if id(t) in own])
    return ClientNames(part.nbytes, tuple(name for name, t in tuned.home.items() if id(t) not in own))


def _cut_work(
    scenario: Scenario, cut: Cut, counted: Counted, elsewhere: int, at_client: ClientNames
) -> CutWork:
    """What one cut costs.

    Args:
        scenario: whose.
        cut: which.
        counted: of the whole model.
        elsewhere: parameters at the client that belong to no stage.
        at_client: what is the client's.
    """
    from fedray.learners.cut import tensors
    from fedray.transport.buffer import DTYPES

    sides = {"client": (*cut.front, *cut.tail), "server": cut.middle}
    weights_of = {
        side: [t for module in _modules(stages) for t in module.parameters()]
        for side, stages in sides.items()
    }
    crossings = {"smashed": tensors(cut.smashed, counted.known[cut.front[-1].name])}
    if cut.tail:
        crossings["features"] = tensors(cut.features, counted.known[cut.middle[-1].name])
    sizes = {crossing: _bytes(scenario, some, counted.samples) for crossing, some in crossings.items()}
    symbols: dict[str, int] = {}
    if cut.on_air:
        sizes["smashed"] = [0] * len(sizes["smashed"])
        numbers = counted.known[cut.front[-1].name][cut.on_air].numel() // counted.samples
        symbols["smashed"] = -(-numbers // 2)
    for crossing, some in crossings.items():
        with_gradients = [(names, t) for names, t in some if t.requires_grad]
        sizes[BACK[crossing]] = _bytes(scenario, with_gradients, counted.samples)
    real = DTYPES[scenario.training.precision]

    def described(names: tuple[str, ...], t: Tensor) -> Crossing:
        return Crossing(names, tuple(t.shape[1:]), str(real if t.is_floating_point() else t.dtype)[6:])

    return CutWork(
        cut=cut.front[-1].name,
        tail=cut.tail[0].name if cut.tail else None,
        flops=_passes(cut, counted.flops),
        crossings={c: [described(*one) for one in some] for c, some in crossings.items()},
        bytes=sizes,
        parameters={
            side: sum(t.numel() for t in weights) + (elsewhere if side == "client" else 0)
            for side, weights in weights_of.items()
        },
        trainable={
            side: sum(t.numel() for t in weights if t.requires_grad) for side, weights in weights_of.items()
        },
        part_bytes=at_client.part_bytes,
        home_at_server=at_client.home_at_server,
        symbols=symbols,
        inputs=cut.sent_as_they_are,
        withheld=cut.withheld(counted.known[cut.front[-1].name]),
        skips=(
            *_others(crossings["smashed"], cut.middle[0].needs),
            *_others(crossings.get("features", []), cut.middle[-1].gives),
        ),
    )


def _passes(cut: Cut, flops: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Floating-point operations of each pass for a sample."""
    front, middle, tail = (
        [sum(flops[stage.name][way] for stage in part) for way in (0, 1)]
        for part in (cut.front, cut.middle, cut.tail)
    )
    if not cut.tail:
        return {"front": front[0], "server_forward_backward": sum(middle), "back": front[1]}
    return {
        "front": front[0],
        "server_forward": middle[0],
        "tail": sum(tail),
        "server_backward": middle[1],
        "back": front[1],
    }


def _others(tensors: NamedTensors, names: tuple[str, ...]) -> list[str]:
    return [own_names[0] for own_names, _ in tensors if not set(own_names) & set(names)]


def _modules(stages: Sequence[Stage]) -> list[nn.Module]:
    return [module for stage in stages for module in stage.modules]


class Counted(NamedTuple):
    """A model's stages on the meta device."""

    flops: dict[str, tuple[float, float]]  # of each stage for a sample, forwards and backwards
    known: dict[str, dict[str, Tensor]]  # all that is known behind each stage
    samples: int  # that the tensors are of


def _counted(learner: Learner) -> Counted:
    import torch

    from fedray.learners.flops import FlopCounter
    from fedray.learners.stages import inputs

    batch, n = learner.blank_batch()
    flops: dict[str, tuple[float, float]] = {}
    known = {name: t.clone() for name, t in inputs(batch).items()}  # blank, some may be one tensor
    behind = {}
    for stage in learner.stages:
        taken = [known[name].detach().requires_grad_(known[name].requires_grad) for name in stage.needs]
        with FlopCounter() as forward:
            given = stage.run(*taken)
        given = given if isinstance(given, tuple) else (given,)
        out = [t for t in given if t.grad_fn is not None]
        with FlopCounter() as backward:
            if out:
                torch.autograd.backward(out, [torch.ones_like(t) for t in out])
        flops[stage.name] = forward.flops / n, backward.flops / n
        known |= zip(stage.gives, given, strict=True)
        behind[stage.name] = dict(known)
    return Counted(flops, behind, n)


def _bytes(scenario: Scenario, tensors: NamedTensors, n: int) -> list[int]:
    """Bytes of these tensors, which are of n samples, for 0, 1, 2, ... samples up to a batch, as they are
    sent."""
    from fedray.transport.buffer import DTYPES
    from fedray.transport.compression import codecs
    from fedray.transport.hooks import encoded_bytes

    written = codecs(scenario.split.compression)
    width = DTYPES[scenario.training.precision].itemsize

    def nbytes(t: Tensor, samples: int) -> int:
        numel = samples * t.numel() // n
        if t.is_floating_point():
            return encoded_bytes(written, numel, width)
        return numel * t.itemsize

    batch = scenario.training.batch_size
    return [0, *(sum(nbytes(t, k) for _, t in tensors) for k in range(1, batch + 1))]
