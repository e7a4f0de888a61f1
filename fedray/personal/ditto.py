"""Ditto (Li et al. 2021, Algorithm 1): v <- v - eta (grad F_k(v) + lambda (v - w)), beside FedAvg's w."""

from collections.abc import Mapping

from torch import Tensor

from fedray.personal.personal import ClientModel, Personal

OWN = "model"  # v, in a client's state


class Ditto(Personal):
    def local_update(self, model: ClientModel) -> dict[str, Tensor]:
        for batch in model.batches:
            model.step(batch)
        sent = model.numbers.clone()
        model.numbers.copy_(model.state.get(OWN, model.received))
        model.restart()
        center = model.received[model.trained]

        def pull(gradient: Tensor, weights: Tensor) -> None:
            gradient.add_(weights - center, alpha=self.section.mu)

        for batch in model.own_batches(self.section.epochs()):
            model.own_step(batch, adjust=pull)
        own = model.numbers.clone()
        model.numbers.copy_(sent)
        return {OWN: own}

    def load(self, numbers: Tensor, state: Mapping[str, Tensor]) -> None:
        if OWN in state:
            numbers.copy_(state[OWN])
