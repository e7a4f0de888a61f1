"""A kind of each room, as a user writes them in a file beside a scenario."""

import csv

import numpy as np
import torch
from pydantic import Field
from torch import nn

import fedray


class Biases(fedray.Tuning):
    """Trains the biases alone."""

    class Section(fedray.Tuning.Section):
        layers: list[str] = Field(default=[], description="Only of these layers. Empty: of all.")

    def select(self, learner):
        parts = learner.parts.items()
        named = {f"{part}.{name}": p for part, m in parts for name, p in m.named_parameters()}
        endings = tuple(f"{layer}.bias" for layer in self.section.layers or [""])
        return {name: p for name, p in named.items() if name.endswith(endings)}


class TrimmedMean(fedray.Rule):
    """The mean without the smallest and largest of each number (Yin et al. 2018)."""

    class Section(fedray.Rule.Section):
        trim: int = Field(default=1, ge=0, description="How many at each end.")
        cites = ("yin2018byzantine", "nobody2026unheard")  # the second is in no list of ours

    accumulator = fedray.Gathered

    def combine(self, result):
        n = len(result.values)
        trim = self.section.trim
        return result.values.sort(0).values[trim : n - trim].double().mean(0)


class Scaled(fedray.Hook):
    """Sends a multiple of what a client has learnt."""

    class Section(fedray.Hook.Section):
        factor: float = Field(description="By which an update is multiplied.")

    def on_client(self, update, context):
        return update * self.section.factor


class OneByOne(fedray.Topology):
    """All train at the same time, and send their updates one after another."""

    class Section(fedray.Topology.Section):
        backwards: bool = Field(default=False, description="Whether the last client is the first.")

    def schedule(self, context):
        steps, ups = [], []
        for k in reversed(context.clients) if self.section.backwards else context.clients:
            down = fedray.Send(f"down-{k}", fedray.SERVER_ID, k, "downlink")
            train = fedray.Train(f"train-{k}", k, (down.id,))
            up = fedray.Send(f"up-{k}", k, fedray.SERVER_ID, "uplink", (train.id, *ups[-1:]))
            steps += [down, train, up]
            ups.append(up.id)
        return fedray.Schedule(context.round_number, (*steps, fedray.Aggregate("aggregate", tuple(ups))))


class Last(fedray.Selection):
    """The clients with the largest numbers."""

    class Section(fedray.Selection.Section):
        skip: int = Field(default=0, ge=0, description="How many of them are left out.")

    def choose(self, context):
        end = len(context.available) - self.section.skip
        return context.available[end - context.count : end]


class RateTable(fedray.Link):
    """Each client's rate from a table, at a watt."""

    class Section(fedray.Link.Section):
        rates_bps: list[float] = Field(description="Of each client, in bit/s.")

    def rates_bps(self, start, sender, receiver):
        return np.array(self.section.rates_bps)[np.where(sender >= 0, sender, receiver)]

    def transfers(self, start, requests):
        time_s = 8 * requests.nbytes / self.rates_bps(start, requests.sender, requests.receiver)
        return fedray.TransferCosts(time_s, 1.0 * time_s, np.zeros(len(time_s), bool))


class NanoDevice(fedray.Device):
    """So many nanoseconds, and a nanojoule, an operation."""

    class Section(fedray.Device.Section):
        nanoseconds: float = Field(gt=0, description="Nanoseconds of one operation.")

    def time_s(self, flops, frequency_hz=None):
        return 1e-9 * self.section.nanoseconds * flops

    def energy_j(self, flops, frequency_hz=None):
        return 1e-9 * flops


class WeightNorm(fedray.Evaluation):
    """How long the vector of all weights is."""

    class Section(fedray.Evaluation.Section):
        power: int = Field(default=2, ge=1, description="Of the norm.")

    def measure(self, learner, context):
        weights = torch.cat([p.detach().flatten() for m in learner.parts.values() for p in m.parameters()])
        return {"eval_norm": float(weights.norm(self.section.power))}


class CsvFile(fedray.Callback):
    """A line a round in the run folder."""

    class Section(fedray.Callback.Section):
        name: str = Field(default="rounds.csv", description="The file.")

    def on_start(self, start):
        self.file = (start.run / self.section.name).open("a", newline="")

    def on_round(self, report):
        csv.writer(self.file).writerow([report.round_number, report.metrics["loss"]])

    def on_end(self, end):
        self.file.close()


class Rounded(fedray.Defence):
    """Activations are rounded before they are sent."""

    class Section(fedray.Defence.Section):
        bits: int = Field(ge=0, description="How many binary places are left.")

    def sent(self, smashed, draws):
        return [(names, self.rounded(t) if t.is_floating_point() else t) for names, t in smashed]

    def rounded(self, values):
        """Gradients go through as if nothing was rounded."""
        n = 2.0**self.section.bits
        return values + ((values * n).round() / n - values).detach()


class Short(fedray.RelayDefence):
    """Rejects changes longer than a limit."""

    class Section(fedray.RelayDefence.Section):
        limit: float = Field(gt=0, description="The longest change that is accepted.")

    def receive(self, hop):
        return hop.change if float(hop.change.norm()) <= self.section.limit else None


class AsTheyAre(fedray.Mode):
    """Stale updates count as much as fresh ones."""

    class Section(fedray.Mode.Section):
        together: int = Field(ge=1, description="With how many updates the server takes its step.")

        @property
        def updates_per_step(self):
            return self.together

    def contribution(self, change, staleness, drift):
        return change


def not_a_class():
    """A function, which is no kind."""


class Unrelated(nn.Module):
    """A class that is no kind."""
