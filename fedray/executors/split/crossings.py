"""What both ends of a crossing know without telling each other."""

from fedray.randomness import key
from fedray.schedule import Pass


def crossing_seed(seed: int, round_number: int, step: Pass, crossing: str) -> int:
    """What both ends of a crossing draw from."""
    return key(seed, round_number, step.client, f"{crossing} {step.batch} {step.part}")
