"""Noise on each client's update before it is sent, in a relay at each hop."""

from torch import Tensor

from fedray.privacy.mechanism import Mechanism
from fedray.privacy.noise import clipped
from fedray.transport.hooks import HookContext


class Local(Mechanism):
    """What leaves a client is its clipped update [n] with noise of noise_multiplier times clip_norm on each
    number."""

    def on_client(self, update: Tensor, context: HookContext) -> Tensor:
        update, _ = clipped(update, self.section.clip_norm)
        return (update.double() + self.noise(len(update), context, "privacy")).float()
