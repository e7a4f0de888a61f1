"""Networks and processors of the transformers library, opened from their folders alone."""

from pathlib import Path
from typing import Any

import torch

from fedray.scenario.base import Refused


def opened(name: str, place: Path | None, device: torch.device | None = None) -> Any:
    """What a folder holds, by the class of transformers that opens it.

    Args:
        name: the class's.
        place: the folder.
        device: of a network, where it goes, frozen and in evaluation mode; None: it is no network.

    Raises:
        Refused: where the folder is none of such.
    """
    import transformers

    kind: Any = getattr(transformers, name)
    try:
        if device is None:
            return kind.from_pretrained(str(place), local_files_only=True, trust_remote_code=False)
        made, loaded = kind.from_pretrained(str(place), local_files_only=True, output_loading_info=True)
        if missing := sorted(loaded["missing_keys"]):
            raise ValueError(f"without {missing[0]}")
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as e:
        got = f"{place}, which is no {name} ({str(e).strip().splitlines()[0][:100]})"
        raise Refused("evaluation.features.weights", got, "one as its save_pretrained writes it") from None
    return made.to(device).eval().requires_grad_(False)
