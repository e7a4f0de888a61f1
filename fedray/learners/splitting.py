"""What a learner may say for a split, where a worker has several of its local updates under way, and only a
part of its networks."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class TakesSplits:
    """For the most part, a learner's stages say all that a split asks. The rest is here."""

    @property
    def update_state(self) -> Any:
        """What a local update counts beside its weights, such as the samples that it has seen. It is read
        once `prepare_round` has been called and after each of the update's passes, and set before the next
        one. Here: nothing."""
        return None

    @update_state.setter
    def update_state(self, value: Any) -> None:
        pass

    def receive_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Called at each end of a split before `prepare_round`, with the travelling buffers that the round
        begins from, by their names in `travelling_buffers`; the server has those of clients' stages here
        alone. Here: nothing."""

    def at_snr(self, batch: Any, snr_db: float) -> Any:
        """A batch that goes over a link of this mean signal-to-noise ratio, in dB. Raises NotImplementedError
        for a learner that sends nothing over the air."""
        raise NotImplementedError(f"{type(self).__name__} sends nothing over the air")
