"""Kinds that raise while they are used."""

from my_kinds import CsvFile, Last, OneByOne, RateTable, TrimmedMean, WeightNorm
from my_learner import SmallNet

import fedray


class Learning(SmallNet):
    def loss(self, batch):
        if batch.images.device.type == "meta":  # while its work is counted
            return super().loss(batch)
        raise KeyError("no such key")  # Learning


class Counted(SmallNet):
    def loss(self, batch):
        raise KeyError("no such key")  # Counted


class Sending(fedray.Hook):
    def on_client(self, update, context):
        raise KeyError("no such key")  # Sending


class Combining(TrimmedMean):
    def combine(self, result):
        raise KeyError("no such key")  # Combining


class Writing(OneByOne):
    def schedule(self, context):
        if context.round_number == 1:
            return super().schedule(context)
        raise KeyError("no such key")  # Writing


class Choosing(Last):
    def choose(self, context):
        if context.round_number == 1:
            return super().choose(context)
        raise KeyError("no such key")  # Choosing


class Transferring(RateTable):
    def transfers(self, start, requests):
        raise KeyError("no such key")  # Transferring


class Measuring(WeightNorm):
    def measure(self, learner, context):
        raise KeyError("no such key")  # Measuring


class Calling(CsvFile):
    def on_round(self, report):
        raise KeyError("no such key")  # Calling
