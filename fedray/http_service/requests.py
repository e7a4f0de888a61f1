"""What a request asks for, read from its body without trust, and how one is refused."""

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedray.errors import printable, shortened

MOST_SEED = 2**53 - 1  # the largest whole number that every JSON reader keeps
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]
Guidance = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Refusal(Exception):
    """An answer that is no picture.

    Args:
        status: of HTTP.
        message: what was got and what was expected.
        headers: of the answer.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.status = status
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True)
class Limits:
    """What a service takes on.

    Attributes:
        queue: requests that may wait beside those that are being answered.
        steps: of the sampler, at most.
        body_bytes: of a request's body, at most.
        body_s: seconds in which a body has to arrive.
    """

    queue: int = 16
    steps: int = 150
    body_bytes: int = 65_536
    body_s: float = 10.0


@dataclass(frozen=True)
class ServedRun:
    """A run whose model answers requests, by the name under which it is chosen.

    Attributes:
        name: unique in a service.
        path: of the run folder.
        takes_prompts: whether its images follow a text.
        steps: where a request names none.
        guidance: where a request names none.
        threads: of the processor, as the run's scenario says.
    """

    name: str
    path: str
    takes_prompts: bool
    steps: int
    guidance: float
    threads: int = 1


@dataclass(frozen=True)
class ImageRequest:
    """One image to be made.

    Attributes:
        adapter: name of the run whose model makes it.
        prompt: empty for a model that takes none.
        seed: of its noise.
        steps: of the sampler.
        guidance: how much the image follows its prompt.
    """

    adapter: str
    prompt: str
    seed: int
    steps: int
    guidance: float


@dataclass(frozen=True)
class GeneratedImage:
    """What a model process gives: a PNG file, and the seconds that it took."""

    png: bytes = field(repr=False)
    seconds: float


class Body(BaseModel):
    """The JSON object of `POST /generate`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str | None = None
    adapter: str | None = None
    seed: Seed = 0
    steps: Annotated[int, Field(ge=1)] | None = None
    guidance: Guidance | None = None


def read_request(raw: bytes, runs: dict[str, ServedRun], limits: Limits) -> ImageRequest:
    """The image that a body asks for; what it does not say is as in the run's own evaluation, the seed 0 as
    with `fedray generate`.

    Raises:
        Refusal: 400 for what is no JSON, 404 for an adapter that is not there, 422 for other values.
    """
    try:
        body = Body.model_validate_json(raw)
    except ValidationError as e:
        raise _invalid(e) from None
    name = next(iter(runs)) if body.adapter is None else body.adapter
    if name not in runs:
        there = ", ".join(runs)
        raise Refusal(404, f"adapter: got {_shown(name)}, expected one of: {there}")
    run = runs[name]
    if run.takes_prompts and body.prompt is None:
        raise Refusal(422, "prompt: got nothing, expected a text")
    if not run.takes_prompts and body.prompt:
        raise Refusal(422, f"prompt: got one for {name}, expected none: its images come from noise alone")
    steps = run.steps if body.steps is None else body.steps
    if steps > limits.steps:
        raise Refusal(422, f"steps: got {steps}, expected at most {limits.steps}")
    guidance = run.guidance if body.guidance is None else body.guidance
    return ImageRequest(name, body.prompt or "", body.seed, steps, guidance)


def _invalid(error: ValidationError) -> Refusal:
    """The first thing that is wrong with a body."""
    first = error.errors(include_url=False, include_context=False)[0]
    kind = first["type"]
    if kind == "json_invalid":
        return Refusal(400, f"body: got no JSON ({first['msg']}), expected a JSON object")
    if not first["loc"]:
        return Refusal(400, "body: got other JSON, expected an object")
    key = printable(shortened(str(first["loc"][0])))
    if kind == "extra_forbidden":
        return Refusal(422, f"{key}: got a key that is not known, expected {', '.join(Body.model_fields)}")
    reason = first["msg"].removeprefix("Input should be ")
    return Refusal(422, f"{key}: got {_shown(first['input'])}, expected {reason}")


def _shown(value: object) -> str:
    return printable(shortened(repr(value)))
