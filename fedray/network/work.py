"""What each step of a schedule does, known before it is done."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fedray.steps import Aggregate, Generate, Pass, Score, Send, Step, Train, Validate


class Loads(Protocol):
    """What each step of a schedule does, known before it is done."""

    def load(self, step: Step) -> float:
        """Bytes of a send step, floating-point operations of any other."""

    def wait_s(self, step: Step) -> float:
        """Seconds that a step takes beside its work, in which its device does nothing."""

    def symbols(self, step: Step) -> int:
        """Channel uses (complex symbols) of a send step that goes on the air as it is, beside its bytes."""


@dataclass(frozen=True)
class Work:
    train_flops: Callable[[int, int], float]  # of a client's local update, with so many generated pictures
    # of a whole buffer, in this direction, to or from (uplink, sidelink) this client
    send_bytes: Callable[[str, int], int]
    aggregate_flops: Callable[[int], float]  # of so many updates
    # of a client's local update on so many of its samples
    part_flops: Callable[[int, int], float] = lambda client, samples: 0.0
    generate_flops: float = 0.0  # of a picture
    # Of so many samples: a pass through one side of a split model, and what crosses its cut, as bytes or as
    # channel uses.
    pass_flops: Callable[[str, int], float] = lambda stage, samples: 0.0
    crossing_bytes: Callable[[str, int], int] = lambda crossing, samples: 0
    crossing_symbols: Callable[[str, int], int] = lambda crossing, samples: 0
    # channel uses of a client's update, where it goes on the air as it is: it has no bytes then
    uplink_symbols: int = 0
    picture_bytes: int = 0
    change_bytes: int = 0  # of a whole buffer that goes down: how the base weights have changed
    state_bytes: int = 0  # of what a client keeps between its local updates
    # of all of a client's samples, once; none: nothing to encode
    encode_flops: Callable[[int], float] | None = None
    # of trying two models on all of a client's samples
    validate_flops: Callable[[int], float] = lambda client: 0.0
    # for what a client's local update waits beside its work, in seconds; none: for nothing
    waits_s: Callable[[int], float] | None = None
    score_flops: float = 0.0  # of classifying a generated picture
    evaluate_flops: float = 0.0  # of one model on a sample

    def load(self, step: Step) -> float:
        if isinstance(step, Send):
            if step.bytes is not None:
                return step.bytes
            if step.crossing:
                return self.crossing_bytes(step.crossing, step.samples)
            if step.state:
                return self.state_bytes
            if step.pictures is not None:
                return step.pictures * self.picture_bytes
            return round(step.share * self.send_bytes(step.direction, step.client))
        if isinstance(step, Train):
            if step.samples is not None:
                return self.part_flops(step.client, step.samples) + self._encoding(step)
            return self.train_flops(step.client, step.pictures) + self._encoding(step)
        if isinstance(step, Pass):
            return self.pass_flops(step.stage, step.samples) + self._encoding(step)
        if isinstance(step, Validate):
            return self.validate_flops(step.client)
        if isinstance(step, Score):
            return step.pictures * self.score_flops
        if isinstance(step, Generate):
            return step.pictures * self.generate_flops
        if step.only_ends:
            return 0.0
        return self.aggregate_flops(len(step.after)) + step.evaluated * self.evaluate_flops

    def wait_s(self, step: Step) -> float:
        if isinstance(step, Aggregate):
            return step.agrees_s
        return self.waits_s(step.client) if self.waits_s and isinstance(step, Train) else 0.0

    def symbols(self, step: Step) -> int:
        if isinstance(step, Send) and step.crossing:
            return self.crossing_symbols(step.crossing, step.samples)
        return self.uplink_symbols if isinstance(step, Send) and step.direction == "uplink" else 0

    def _encoding(self, step: Train | Pass) -> float:
        return self.encode_flops(step.client) if step.encodes and self.encode_flops else 0.0
