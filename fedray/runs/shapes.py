"""What the files of a run folder hold, for whoever reads one: the keys that are relied on, and their
types."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedray.steps import BACK

Number = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(ge=0)]
Node = Annotated[str, Field(pattern=r"^(server|(client|edge)-\d{1,9})$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PASS = re.compile(r"[a-z_]+-\d{1,9}-\d+(-\d+)?")  # the id of a split model's pass: stage, client, batch, part


class Shape(BaseModel):
    """Other keys may be there: later versions write more."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, protected_namespaces=())


class Measured(Shape):
    """Metrics by name; null: not measured, or no number."""

    __pydantic_extra__: dict[str, float | None]


class Round(Measured):
    """A line of metrics.jsonl."""

    round: Whole
    loss: float | None
    clients: Whole
    bytes_uplink: Number
    bytes_downlink: Number
    bytes_sidelink: Number
    sim_time_s: Number
    energy_j: Number
    wall_time_s: Number


class Step(Shape):
    """A line of timeline.jsonl."""

    round: Whole
    id: str
    after: list[str]
    event: Literal[
        "train",
        "generate",
        "validate",
        "score",
        "send",
        "aggregate",
        "wait",
        "front",
        "tail",
        "back",
        "server_forward_backward",
        "server_forward",
        "server_backward",
    ]
    node: Node
    peer: Node | None
    direction: Literal["uplink", "downlink", "sidelink", "backhaul"] | None
    flops: Number
    bytes: Number
    t0_s: Number
    t1_s: Number
    energy_j: Number
    outcome: Literal["done", "lost", "late", "dropped", "skipped", "failed"]
    messages: Whole = 1
    client: Whole | None = None
    batch: Whole | None = None  # with client and part: of a split model's pass; earlier versions have them
    part: Whole | None = None  # in its id alone
    waits_s: Number = 0.0
    symbols: Whole = 0

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.event == "send") != (self.peer is not None and self.direction is not None):
            raise ValueError("a peer and a direction of a send step, and of no other")
        if self.t1_s < self.t0_s:
            raise ValueError("an end (t1_s) that is not before its start (t0_s)")
        if self.event not in ("send", "train", "generate", "validate", "score", "aggregate", "wait"):
            has_fields = None not in (self.client, self.batch, self.part)
            if not has_fields and not PASS.fullmatch(self.id):
                raise ValueError("client, batch and part of a split model's pass, or an id such as front-3-0")
        return self


class ClientRound(Shape):
    """A line of clients.jsonl."""

    round: Whole
    client: Whole
    samples: Whole
    steps: Whole
    loss: float | None
    bytes_uplink: Number
    bytes_downlink: Number
    bytes_sidelink: Number
    sim_time_s: Number
    energy_j: Number
    outcome: Literal["done", "rejected", "late", "lost", "dropped", "failed", "skipped"]


class ClientTest(Measured):
    """A line of client_tests.jsonl."""

    round: Whole
    client: Whole
    samples: Whole = 0  # of the test of its own model
    holdout_samples: Whole = 0  # of the global model's


class One(Shape):
    """A run in result.json, of its own or of a sweep."""

    status: Literal["done", "failed"]
    rounds: Whole | None = None
    weights_sha256: Sha256 | None = None
    artifacts: list[str] = []
    final: Measured | None = None
    baseline: Measured | None = None

    @property
    def known(self) -> bool:
        return self.rounds is not None and self.weights_sha256 is not None


class Estimated(Shape):
    """A metric over several seeds."""

    n: Whole
    mean: float
    std: Number | None
    ci95: list[float] | None


class OverSeeds(Shape):
    """A sweep's variant, over its runs under several seeds."""

    runs: list[str]
    seeds: list[int]
    done: Whole
    metrics: dict[str, Estimated]


class Result(One):
    variants: dict[str, One] | None = None
    summary: dict[str, OverSeeds] | None = None  # of a sweep, by variant

    @model_validator(mode="after")
    def _whole(self) -> Self:
        runs = [self] if self.variants is None else self.variants.values()
        if any(run.status == "done" and not run.known for run in runs):
            raise ValueError("rounds and weights_sha256 of every run that is done")
        return self


class Error(Shape):
    message: str
    next: str | None = None


class Module(Shape):
    """A user's own, whose kinds a scenario names."""

    folder: str
    sha256: Sha256


class Environment(Shape):
    platform: str | None = None
    cpus: Whole | None = None
    python: str | None = None
    packages: dict[str, str | None] = {}
    command: str | None = None
    code: dict[str, Module] = {}
    features: dict[str, Sha256] = {}


class Census(Shape):
    """partition.json: see data.partition.Census."""

    labels: Annotated[list[str], Field(min_length=1)]
    counts: list[list[Whole]]
    emd: list[Number | None]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.counts) != len(self.emd) or any(len(row) != len(self.labels) for row in self.counts):
            raise ValueError("a row of counts and an emd a client, and a count a label")
        if not any(emd is not None and any(row) for emd, row in zip(self.emd, self.counts, strict=True)):
            raise ValueError("a client that holds something")
        return self


class Audited(Shape):
    learning_error: float | None
    gradient_gap: float | None


class Pictures(Shape):
    images: Whole
    learning_error: float
    gradient_gap: float
    recognised: Share | None = None
    classifier_fid: float | None = None


class TriedPrompt(Shape):
    label: str
    prompt: str
    score: Share
    chosen: bool


class Augmentation(Shape):
    clients: list[Audited]
    prompts: list[TriedPrompt] = []
    pictures: Pictures | None = None
    emd_before: list[Number | None]
    emd_after: list[Number | None]


class Tensor(Shape):
    names: list[str]
    shape: list[Whole]
    dtype: str


class Trainable(Shape):
    client: Whole
    server: Whole


class Split(Shape):
    """split.json: what crosses a split model's cut."""

    cut: str
    tail: str | None
    inputs: list[str]
    skips: list[str]
    trainable: Trainable
    flops: dict[str, Number]
    crossings: dict[Literal["smashed", "features"], list[Tensor]]
    bytes: dict[str, Number]
    symbols: dict[str, Whole] = {}  # a sample's

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if any(key not in self.bytes for name in self.crossings for key in (name, BACK[name])):
            raise ValueError("the bytes of everything that crosses")
        if not any(self.flops.values()):
            raise ValueError("work (flops)")
        return self


class Sums(Shape):
    weights_sha256: Sha256
    files: dict[Annotated[str, Field(pattern=r"^\w[\w.-]*$")], str]


class Checkpoint(Shape):
    """state.json of a checkpoint."""

    round: Whole
    saved: Sums
    ledger: dict[str, Number | dict[str, float] | list[Whole]]
    wall_time_s: Number
    failures: Whole
    metrics_lines: Whole
    timeline_lines: Whole
    clients_lines: Whole = 0
    client_tests_lines: Whole = 0


LINES: dict[str, type[Shape]] = {
    "metrics.jsonl": Round,
    "timeline.jsonl": Step,
    "clients.jsonl": ClientRound,
    "client_tests.jsonl": ClientTest,
}
SHAPES: dict[str, type[Shape]] = {
    "result.json": Result,
    "error.json": Error,
    "env.json": Environment,
    "baseline.json": Measured,
    "partition.json": Census,
    "augmentation.json": Augmentation,
    "split.json": Split,
    "state.json": Checkpoint,
}
