"""A learner cut in two, or in three for a U-shape: whose stages are whose, and what crosses."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedray.learners.stage_names import refuse_unknown
from fedray.learners.stages import Stage, Values, needed
from fedray.scenario.base import Refused
from fedray.scenario.topology import Split
from fedray.transport.messages import NamedTensors


@dataclass(frozen=True)
class Cut:
    front: tuple[Stage, ...]  # the client's
    middle: tuple[Stage, ...]  # the server's
    tail: tuple[Stage, ...] = ()  # the client's again

    @property
    def name(self) -> str:
        return self.front[-1].name + (f"..{self.tail[0].name}" if self.tail else "")

    @property
    def smashed(self) -> tuple[str, ...]:
        """What goes up to the server."""
        return needed(self.middle)

    @property
    def features(self) -> tuple[str, ...]:
        """What comes down to the tail."""
        given = {name for stage in self.middle for name in stage.gives}
        return tuple(name for name in needed(self.tail) if name in given)

    @property
    def home(self) -> tuple[str, ...]:
        """What the tail takes from its own client: skips over the server, and what only it may know."""
        return tuple(name for name in needed(self.tail) if name not in self.features)

    @property
    def optional(self) -> tuple[str, ...]:
        """What the tail takes from its own client's batch where that has it."""
        return tuple(name for stage in self.tail for name in stage.optional)

    def withheld(self, values: Collection[str]) -> tuple[str, ...]:
        """Of these names of a batch's fields, those that the server's stages would take and are not sent."""
        return tuple(name for stage in self.middle for name in stage.optional if name in values)

    @property
    def on_air(self) -> str | None:
        """What goes up as symbols, where the cut is a channel; None: what goes up is bytes."""
        return self.front[-1].on_air

    @property
    def channels_within(self) -> tuple[str, ...]:
        """Names of the channels that are one side's own."""
        return tuple(s.name for s in (*self.front[:-1], *self.middle, *self.tail) if s.on_air)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the whole step takes."""
        return needed((*self.front, *self.middle, *self.tail))

    @property
    def secret(self) -> str:
        """The input that activations should not tell of: the first that is not sent anyway."""
        return next((name for name in self.inputs if name not in self.smashed), self.inputs[0])

    @property
    def sent_as_they_are(self) -> tuple[str, ...]:
        """Inputs that the server is sent."""
        return tuple(name for name in self.smashed if name in self.inputs)


def cut(stages: Sequence[Stage], topology: Split) -> Cut:
    """As a scenario asks for it.

    Raises:
        Refused: for stages that are not there or leave the server nothing, and for inputs that may not leave
            their client.
    """
    refuse_unknown([stage.name for stage in stages], topology)
    (only,) = _between(stages, topology)
    if reason := refusal(only, topology):
        raise reason
    return only


def cuts(stages: Sequence[Stage], topology: Split) -> list[Cut]:
    """Every cut that a scenario allows: where it says auto, all there are.

    Raises:
        Refused: for stages that are not there; and the reason why the last one is not allowed, where none is.
    """
    refuse_unknown([stage.name for stage in stages], topology)
    possible = list(_between(stages, topology))
    allowed = [cut for cut in possible if refusal(cut, topology) is None]
    if not allowed and (reason := refusal(possible[-1], topology)):
        raise reason
    return allowed


def _between(stages: Sequence[Stage], topology: Split) -> Iterator[Cut]:
    n = len(stages)
    for first in range(1, n):
        for last in range(first + 1, n) if topology.tail else [n]:
            cut = Cut(tuple(stages[:first]), tuple(stages[first:last]), tuple(stages[last:]))
            if topology.cut in ("auto", cut.front[-1].name) and topology.tail in (
                None,
                "auto",
                *(s.name for s in cut.tail[:1]),
            ):
                yield cut


def refusal(cut: Cut, topology: Split) -> Refused | None:
    """Why a scenario does not allow this cut, if so."""
    if within := cut.channels_within:
        got = f"{cut.name}, with the channel ({within[0]}) inside one side"
        return Refused("topology.cut", got, f"{within[0]}: between client and server there is the air")
    if cut.on_air and cut.sent_as_they_are:
        got = f"{cut.name}, behind which the server would need each sample's {cut.sent_as_they_are[0]}"
        return Refused("topology.tail", got, "a tail, with which they stay: what goes up is symbols alone")
    if unknown := [name for name in topology.may_send if name not in cut.inputs]:
        return Refused("topology.may_send", ", ".join(unknown), f"some of {', '.join(cut.inputs)}")
    if sent := [name for name in cut.sent_as_they_are if name not in topology.may_send]:
        expected = (
            f"a tail, which keeps {'them' if len(sent) > 1 else 'it'} at home, or may_send:"
            f" [{', '.join(sent)}]"
        )
        return Refused(
            "topology.may_send",
            f"a cut ({cut.name}) that sends the server each client's {' and '.join(sent)}",
            expected,
        )
    return None


def tensors(names: Sequence[str], values: Mapping[str, Tensor]) -> NamedTensors:
    """Each tensor once, with all its names: a skip from the cut is what goes on from there."""
    by_tensor: dict[int, tuple[list[str], Tensor]] = {}
    for name in names:
        by_tensor.setdefault(id(values[name]), ([], values[name]))[0].append(name)
    return [(tuple(names), tensor) for names, tensor in by_tensor.values()]


def named(tensors: NamedTensors) -> Values:
    return {name: tensor for names, tensor in tensors for name in names}
