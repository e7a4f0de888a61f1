"""The rules by the `kind` a scenario names."""

from fedray.aggregation.fedavg import FedAvg
from fedray.aggregation.fedopt import FedAdam, FedAvgM, FedYogi
from fedray.aggregation.fedprox import FedProx
from fedray.aggregation.lora import FedExLora, FfaLora, Flora, HetLora
from fedray.aggregation.median import Median
from fedray.aggregation.rule import Rule
from fedray.aggregation.scaffold import Scaffold
from fedray.scenario.aggregation import Aggregation
from fedray.transport.buffer import Layout

RULES: dict[str, type[Rule]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "fedavgm": FedAvgM,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "ffa_lora": FfaLora,
    "hetlora": HetLora,
    "fedex_lora": FedExLora,
    "flora": Flora,
    "median": Median,
}


def rule(section: Aggregation, layout: Layout) -> Rule:
    """The rule that a scenario names, over what travels in it."""
    return RULES[section.kind](section, layout)
