"""How far a training is, on disk."""

from __future__ import annotations

import time
from pathlib import Path

import torch


class Progress:
    """Where a training is: kept every 200 steps, so that a broken one goes on with the same bits.

    Args:
        file: what it is kept in.
        parts: whatever has a state_dict, by name.
        g: the generator that all draws come from.
    """

    def __init__(self, file: Path, parts: dict, g: torch.Generator) -> None:
        self.file, self.parts, self.g = file, parts, g
        self.step, self.seconds, self.losses, self.curve = 0, 0.0, [], {}
        if file.exists():
            kept = torch.load(file, weights_only=True)
            for name, part in parts.items():
                part.load_state_dict(kept[name])
            g.set_state(kept["g"])
            self.step, self.seconds, self.curve = kept["step"], kept["seconds"], kept["curve"]
        self.since = time.time()

    def done(self, loss: float) -> None:
        """After a step."""
        self.step += 1
        self.losses.append(loss)
        if self.step % 200:
            return
        now = time.time()
        self.seconds += now - self.since
        self.since = now
        self.curve[self.step] = round(sum(self.losses) / len(self.losses), 5)
        self.losses = []
        print(f"step {self.step} loss {self.curve[self.step]} {self.seconds:.0f} s", flush=True)
        kept = {name: part.state_dict() for name, part in self.parts.items()}
        kept |= {"g": self.g.get_state(), "step": self.step, "seconds": self.seconds, "curve": self.curve}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(kept, self.file.with_suffix(".new"))
        self.file.with_suffix(".new").replace(self.file)
