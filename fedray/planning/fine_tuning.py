"""The scenario of a generator's fine-tuning, which comes before another scenario's first round."""

import json

from fedray.scenario import Loaded
from fedray.scenario.load import load_text


def fine_tuning(loaded: Loaded) -> Loaded | None:
    """The scenario of the fine-tuning that comes first; None where none does.

    Raises:
        ScenarioError: for one that cannot be.
    """
    augmentation = loaded.scenario.augmentation
    if loaded.scenario.sweep is not None or augmentation is None or augmentation.tune_first is None:
        return None
    tree = augmentation.tune_first.of(loaded.absolute())
    return load_text(json.dumps(tree), loaded.file, code=tuple(loaded.code_folders), mapping=True)
