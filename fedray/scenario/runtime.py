"""`runtime`: where the work runs. Nothing here but `threads` can change a result."""

import difflib
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fedray.scenario.base import Count, Section

# accelerate's trackers, and what installs each
TRACKERS = {
    "aim": "aim",
    "clearml": "clearml",
    "comet_ml": "comet-ml",
    "dvclive": "dvclive",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "tensorboard": "'fedray[tensorboard]'",
    "trackio": "trackio",
    "wandb": "wandb",
}
REFERENCE = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"  # module:Class
PATTERN = f"^({'|'.join(TRACKERS)}|{REFERENCE})$"


def _reporter(name: str) -> str:
    if re.fullmatch(PATTERN, name):
        return name
    near = difflib.get_close_matches(name, TRACKERS, n=1)
    expected = f"{near[0]} (did you mean it?)" if near else "one of " + ", ".join(TRACKERS)
    raise ValueError(f"{expected}, or module:Class of a callback")


# a tracker, or a class of a user's own
Reporter = Annotated[str, AfterValidator(_reporter), Field(json_schema_extra={"pattern": PATTERN})]


class Failures(Section):
    """A round that loses an actor or a node is done again, up to `retries` times. A data failure (a loss that
    is not finite, an image that cannot be read) drops the client from its round, at most `budget` times, or
    aborts the run."""

    retries: Annotated[int, Field(ge=0)] = 3
    data: Literal["abort", "drop"] = "drop"
    budget: Annotated[int, Field(ge=0)] = 10


class Runtime(Section):
    executor: Literal["ray", "serial"] = "ray"
    actors: Count | Literal["auto"] = "auto"
    gpus_per_actor: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    threads: Count = 1  # of each actor; another number gives other bits
    checkpoint_every: Count = 1
    # beside metrics.jsonl and Ray's dashboard: names of trackers, and module:Class of callbacks
    report_to: list[Reporter] = []
    failures: Failures = Failures()
