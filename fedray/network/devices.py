"""What it takes to compute: time and energy of a number of floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass

from fedray.scenario.network import FlopsDevice


@dataclass(frozen=True)
class Device:
    """t = FLOPs / (peak * utilisation), E = P_active t."""

    section: FlopsDevice

    def time_s(self, flops: float) -> float:
        return flops / (self.section.peak_flops * self.section.utilisation)

    def energy_j(self, flops: float) -> float:
        return self.section.active_w * self.time_s(flops)
