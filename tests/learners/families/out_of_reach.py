"""A second place for networks on a machine without a GPU: one where nothing can be computed."""

from torch import nn

from fedray.learners.families import family
from fedray.learners.families.offload import HOST, Offload


class OutOfReach(Offload):
    """Takes weights away instead of moving them: whatever computes with offloaded networks fails. When they
    are back, they have other buffers, as after a move.

    Attributes:
        moves: the types of devices that they were moved to.
    """

    made: list["OutOfReach"] = []  # of all learners since `offload_out_of_reach`

    def __init__(self, networks, device):
        super().__init__(networks, device)
        self.gone = {}
        self.moves = []
        if device.type != "meta":  # where nothing is computed anyway
            self.device = type(device)("cuda")
            OutOfReach.made.append(self)

    def _move(self, device):
        self.moves.append(device.type)
        for module in (module for network in self.networks for module in network.modules()):
            if device == HOST:
                self.gone[module] = dict(module._parameters), dict(module._buffers)
                for name, parameter in module._parameters.items():
                    away = None if parameter is None else parameter.detach().to("meta")
                    module._parameters[name] = None if away is None else nn.Parameter(away, False)
                for name, buffer in module._buffers.items():
                    module._buffers[name] = None if buffer is None else buffer.to("meta")
            else:
                parameters, buffers = self.gone.pop(module)
                module._parameters.update(parameters)
                module._buffers.update({n: None if b is None else b.clone() for n, b in buffers.items()})


def offload_out_of_reach(monkeypatch):
    """Every learner's text encoders that are made from now on are offloaded so; gives the list of them."""
    monkeypatch.setattr(family, "Offload", OutOfReach)
    monkeypatch.setattr(OutOfReach, "made", [])
    return OutOfReach.made
