"""FedRep (Collins et al. 2021, Algorithm 1): the head with the body frozen, then the body with the head
frozen."""

from torch import Tensor

from fedray.personal.personal import ClientModel, Personal


class FedRep(Personal):
    def local_update(self, model: ClientModel) -> dict[str, Tensor]:
        for batch in model.own_batches(self.section.epochs()):
            model.own_step(batch, "home")
        model.restart()
        for batch in model.batches:
            model.step(batch, "travelling")
        return {}
