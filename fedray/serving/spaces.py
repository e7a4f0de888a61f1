"""What an environment of another library says of its observations and actions."""

from typing import Any

import numpy as np

from fedray.scenario.base import Refused

KEY = "data.environment.kind"


def sizes(name: str, observations: Any, actions: Any) -> tuple[int, int]:
    """Numbers of an observation, and how many actions there are.

    Args:
        name: of the environment, for the message.
        observations: its space of observations.
        actions: its space of actions.

    Raises:
        Refused: for spaces that are no box, or no numbered actions.
    """
    if getattr(actions, "n", None) is None or getattr(actions, "start", 0) != 0:
        raise Refused(KEY, f"{name} with actions {actions}", "Discrete actions, numbered from 0")
    if getattr(observations, "low", None) is None:
        raise Refused(KEY, f"{name} with observations {observations}", "a Box of numbers")
    return int(np.prod(observations.shape)), int(actions.n)


def flat(name: str, observation: Any, size: int) -> np.ndarray:
    """An observation as float32 [size].

    Args:
        name: of the environment, for the message.
        observation: an array of any shape.
        size: numbers that the environment said it has.

    Raises:
        Refused: where it has another number of them.
    """
    numbers = np.asarray(observation, np.float32).ravel()
    if len(numbers) != size:
        got = f"{name}, whose observation has {len(numbers)} numbers after {size}"
        raise Refused(KEY, got, "an environment whose spaces stay as they are")
    return numbers


def refuse_changed(name: str, before: tuple[Any, Any], after: tuple[Any, Any]) -> None:
    """Raises Refused where spaces are others than they were.

    Args:
        name: of the environment, for the message.
        before: its spaces of observations and actions.
        after: the same, later.
    """
    if before != after:
        got = f"{name}, whose spaces change from {before} to {after}"
        raise Refused(KEY, got, "an environment whose spaces stay as they are")
