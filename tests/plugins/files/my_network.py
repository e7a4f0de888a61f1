"""A network that two learners might share."""

from torch import nn


class Small(nn.Module):
    def __init__(self, numbers, width, labels):
        super().__init__()
        self.first = nn.Linear(numbers, width)
        self.last = nn.Linear(width, labels)
