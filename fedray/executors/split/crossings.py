"""What both ends of a crossing know without telling each other."""

from fedray.randomness import key
from fedray.steps import Pass

# Draws are keyed by these shorter words: the bits of a run depend on them.
KEYS = {
    "server_forward_backward": "serve",
    "server_forward": "middle",
    "server_backward": "middle_back",
    "feature_gradients": "errors",
}


def crossing_seed(seed: int, round_number: int, step: Pass, crossing: str) -> int:
    """What both ends of a crossing draw from.

    Args:
        seed: the run's.
        round_number: from 1.
        step: the pass at either end.
        crossing: what is sent.
    """
    purpose = KEYS.get(crossing, crossing)
    return key(seed, round_number, step.client, f"{purpose} {step.batch} {step.part}")


def dropout_seed(seed: int, round_number: int, step: Pass) -> int:
    """What dropout in a pass draws from."""
    place = step.id.removeprefix(step.stage)
    return key(seed, round_number, step.client, f"dropout {KEYS.get(step.stage, step.stage)}{place}")
