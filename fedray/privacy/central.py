"""Noise on the sum of clipped updates, at the server (McMahan et al. 2018), with a clipping norm that may
follow the updates' norms (Andrew et al. 2021)."""

import math
from typing import Any

from torch import Tensor

from fedray.privacy.mechanism import Mechanism
from fedray.privacy.noise import clipped, gaussian
from fedray.scenario.privacy import AdaptiveClipping
from fedray.transport.hooks import HookContext

CLIP = "clip_norm"  # of the next round, in the server's state
UNCLIPPED = "unclipped"  # how many updates were no longer than it


class Central(Mechanism):
    """Clips each update, a relay's at the end of its chain, and makes the mean of them a noisy sum divided by
    the expected number."""

    def __init__(self, section: Any, scenario: Any) -> None:
        super().__init__(section, scenario)
        self.adaptive: AdaptiveClipping | None = getattr(section, "adaptive", None)
        if not self.in_relay and self.adaptive is None:
            self.largest_norm = section.clip_norm

    def clip_norm(self, context: HookContext) -> float:
        """C of this round."""
        kept = context.server.get(CLIP)
        return float(self.section.clip_norm if kept is None else kept)

    def on_client(self, update: Tensor, context: HookContext) -> Tensor:
        if self.in_relay:  # where the server clips, once a chain
            return update
        update, within = clipped(update, self.clip_norm(context))
        if self.adaptive is not None:
            context.counts[UNCLIPPED] = int(within)
        return update

    @property
    def sees_each_at_server(self) -> bool:
        """Where no `largest_norm` holds for what a client sends."""
        return self.in_relay or self.adaptive is not None

    def on_server(self, update: Tensor, context: HookContext) -> Tensor:
        return clipped(update, self.clip_norm(context))[0] if self.sees_each_at_server else update

    def on_combined(self, combined: Tensor, part: slice, context: HookContext) -> Tensor:
        """[rows, numbers] float64: the mean of those that came, times how many, is the sum."""
        noise = gaussian(combined.numel(), self.section.noise, context.key(f"privacy {part.start}"))
        scale = self.noise_on_sum * self.clip_norm(context)
        total = combined * context.added + scale * noise.view(combined.shape)
        return total / self.expected_updates

    @property
    def noise_on_sum(self) -> float:
        """z_delta, the standard deviation of the noise on the sum, divided by C: more than noise_multiplier
        where a noisy count is published beside it (Andrew et al. 2021, Theorem 1)."""
        if self.adaptive is None or not self.multiplier:
            return self.multiplier
        spread = self.adaptive.noise_on_count(self.expected_updates)
        return multiplier_beside_count(self.multiplier, spread)

    def kept_by_server(self, context: HookContext) -> dict[str, float]:
        """C of the next round (Andrew et al. 2021, Algorithm 1), of how many updates were no longer than
        it. Each counts as a half more or less, so that one changes the count by no more than that."""
        if self.adaptive is None:
            return {}
        spread = self.adaptive.noise_on_count(self.expected_updates)
        draw = float(gaussian(1, self.section.noise, context.key("privacy count"))[0])
        halves = context.counts.get(UNCLIPPED, 0) - context.added / 2
        share = (halves + spread * draw) / self.expected_updates + 0.5
        return {CLIP: next_clip_norm(self.clip_norm(context), share, self.adaptive)}


def multiplier_beside_count(multiplier: float, spread: float) -> float:
    """z_delta = (z^-2 - (2 sigma_b)^-2)^-1/2: sum and count together cost what z alone would.

    Args:
        multiplier: z.
        spread: sigma_b, of the noise on the count of half ones, which one update changes by a half.
    """
    return float((multiplier**-2 - (2 * spread) ** -2) ** -0.5)


def next_clip_norm(norm: float, share: float, adaptive: AdaptiveClipping) -> float:
    """C exp(-eta (b - gamma)).

    Args:
        norm: C.
        share: b, of the updates that were no longer than C.
        adaptive: gamma and eta.
    """
    return norm * math.exp(-adaptive.learning_rate * (share - adaptive.quantile))
