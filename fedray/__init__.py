"""Federated training and fine-tuning of generative models on Ray, over simulated wireless networks.

Everything a script or a notebook needs is here; what takes long to import is imported when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedray.adversary.attack import Attack
    from fedray.aggregation.accumulators import Accumulator, ExactSum, Gathered, Updates
    from fedray.aggregation.modes import Mode
    from fedray.aggregation.rule import Rule
    from fedray.aggregation.staleness import Staleness
    from fedray.api import check, compare, load, open, plan, run, trainable
    from fedray.augmentation.amount import Amount, AmountContext
    from fedray.augmentation.weighting import Weighting, WeightingContext
    from fedray.callbacks import Callback, ClientReport, EvaluationReport, RoundReport, RunEnd, RunStart
    from fedray.data.augment import Augment
    from fedray.data.partition import Partition
    from fedray.data.samples import DatasetInfo, DatasetSamples, Samples
    from fedray.data.source import Source
    from fedray.evaluation.evaluation import Evaluation
    from fedray.evaluation.features import Features
    from fedray.executors.optimizer import Optimizer
    from fedray.executors.relay_defence import Hop, RelayDefence
    from fedray.executors.split.defences import Defence
    from fedray.failures import RunFailed
    from fedray.incentives.incentive import Incentive, Offers, Outcome
    from fedray.learners.agents.algorithm import Algorithm
    from fedray.learners.codec_channels import CodecChannel
    from fedray.learners.contexts import EvaluationContext, LearnerContext, Sampling
    from fedray.learners.learner import Learner
    from fedray.learners.stages import Stage
    from fedray.mixing import Mixing
    from fedray.network.allocations import Allocation, Senders
    from fedray.network.devices import Device
    from fedray.network.links import (
        Link,
        LinkContext,
        RoundStart,
        TransferCosts,
        TransferRequests,
        link_client,
    )
    from fedray.personal.personal import ClientModel, Personal
    from fedray.planning.selection import Selection, SelectionContext
    from fedray.privacy.mechanism import Mechanism
    from fedray.randomness import SERVER_ID
    from fedray.results import Run
    from fedray.scenario import Refused, ScenarioError
    from fedray.scenario.base import FilePath
    from fedray.schedule import Schedule
    from fedray.serving.cache import Cache, CachePolicy
    from fedray.serving.catalogue import Catalogue
    from fedray.serving.environment import Environment, Place, Step
    from fedray.serving.gymnasium import GymnasiumEnvironment
    from fedray.serving.pettingzoo import PettingZooEnvironment
    from fedray.serving.rule import ServingRule
    from fedray.steps import Aggregate, Send, Train
    from fedray.topologies.topology import RoundContext, Topology
    from fedray.transport.hooks import Hook, HookContext
    from fedray.tuning.tuning import Tuning

__version__ = "0.1.0"

__all__ = [
    "SERVER_ID",
    "Accumulator",
    "Aggregate",
    "Algorithm",
    "Allocation",
    "Amount",
    "AmountContext",
    "Attack",
    "Augment",
    "Cache",
    "CachePolicy",
    "Callback",
    "Catalogue",
    "ClientModel",
    "ClientReport",
    "CodecChannel",
    "DatasetInfo",
    "DatasetSamples",
    "Defence",
    "Device",
    "Environment",
    "Evaluation",
    "EvaluationContext",
    "EvaluationReport",
    "ExactSum",
    "Features",
    "FilePath",
    "Gathered",
    "GymnasiumEnvironment",
    "Hook",
    "HookContext",
    "Hop",
    "Incentive",
    "Learner",
    "LearnerContext",
    "Link",
    "LinkContext",
    "Mechanism",
    "Mixing",
    "Mode",
    "Offers",
    "Optimizer",
    "Outcome",
    "Partition",
    "Personal",
    "PettingZooEnvironment",
    "Place",
    "Refused",
    "RelayDefence",
    "RoundContext",
    "RoundReport",
    "RoundStart",
    "Rule",
    "Run",
    "RunEnd",
    "RunFailed",
    "RunStart",
    "Samples",
    "Sampling",
    "ScenarioError",
    "Schedule",
    "Selection",
    "SelectionContext",
    "Send",
    "Senders",
    "ServingRule",
    "Source",
    "Stage",
    "Staleness",
    "Step",
    "Topology",
    "Train",
    "TransferCosts",
    "TransferRequests",
    "Tuning",
    "Updates",
    "Weighting",
    "WeightingContext",
    "check",
    "compare",
    "link_client",
    "load",
    "open",
    "plan",
    "run",
    "trainable",
]

_MODULES = {
    "fedray.adversary.attack": ["Attack"],
    "fedray.aggregation.accumulators": ["Accumulator", "ExactSum", "Gathered", "Updates"],
    "fedray.aggregation.modes": ["Mode"],
    "fedray.aggregation.rule": ["Rule"],
    "fedray.aggregation.staleness": ["Staleness"],
    "fedray.api": ["check", "compare", "load", "open", "plan", "run", "trainable"],
    "fedray.augmentation.amount": ["Amount", "AmountContext"],
    "fedray.augmentation.weighting": ["Weighting", "WeightingContext"],
    "fedray.callbacks": ["Callback", "ClientReport", "EvaluationReport", "RoundReport", "RunEnd", "RunStart"],
    "fedray.data.augment": ["Augment"],
    "fedray.data.partition": ["Partition"],
    "fedray.data.samples": ["DatasetInfo", "DatasetSamples", "Samples"],
    "fedray.data.source": ["Source"],
    "fedray.evaluation.evaluation": ["Evaluation"],
    "fedray.executors.optimizer": ["Optimizer"],
    "fedray.evaluation.features": ["Features"],
    "fedray.executors.relay_defence": ["Hop", "RelayDefence"],
    "fedray.executors.split.defences": ["Defence"],
    "fedray.failures": ["RunFailed"],
    "fedray.incentives.incentive": ["Incentive", "Offers", "Outcome"],
    "fedray.learners.agents.algorithm": ["Algorithm"],
    "fedray.learners.codec_channels": ["CodecChannel"],
    "fedray.learners.contexts": ["EvaluationContext", "LearnerContext", "Sampling"],
    "fedray.learners.learner": ["Learner"],
    "fedray.learners.stages": ["Stage"],
    "fedray.network.allocations": ["Allocation", "Senders"],
    "fedray.network.devices": ["Device"],
    "fedray.network.links": [
        "Link",
        "LinkContext",
        "RoundStart",
        "TransferCosts",
        "TransferRequests",
        "link_client",
    ],
    "fedray.personal.personal": ["ClientModel", "Personal"],
    "fedray.planning.selection": ["Selection", "SelectionContext"],
    "fedray.results": ["Run"],
    "fedray.scenario": ["Refused", "ScenarioError"],
    "fedray.scenario.base": ["FilePath"],
    "fedray.randomness": ["SERVER_ID"],
    "fedray.mixing": ["Mixing"],
    "fedray.schedule": ["Schedule"],
    "fedray.steps": ["Aggregate", "Send", "Train"],
    "fedray.serving.environment": ["Environment", "Place", "Step"],
    "fedray.serving.gymnasium": ["GymnasiumEnvironment"],
    "fedray.serving.pettingzoo": ["PettingZooEnvironment"],
    "fedray.serving.rule": ["ServingRule"],
    "fedray.topologies.topology": ["RoundContext", "Topology"],
    "fedray.privacy.mechanism": ["Mechanism"],
    "fedray.transport.hooks": ["Hook", "HookContext"],
    "fedray.serving.cache": ["Cache", "CachePolicy"],
    "fedray.serving.catalogue": ["Catalogue"],
    "fedray.tuning.tuning": ["Tuning"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fedray' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
