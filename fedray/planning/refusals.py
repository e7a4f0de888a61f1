"""What a scenario asks for that only the loaded model, rule and hooks show to be impossible. All raise
Refused."""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from fedray.aggregation.accumulators import ExactSum
from fedray.aggregation.rule import Rule
from fedray.learners.learner import Learner
from fedray.scenario.base import Refused
from fedray.scenario.scenario import Scenario
from fedray.transport.buffer import places
from fedray.transport.hooks import HookChain
from fedray.tuning.tuning import Tuned, Tuning


def refuse_tuned(scenario: Scenario, tuned: Tuned) -> None:
    """Groups that name nothing that trains, and weights that nobody would keep."""
    _refuse_unnamed_groups(scenario, tuned.trained_names)
    _refuse_home_without_state(scenario, tuned.home)


def _refuse_unnamed_groups(scenario: Scenario, names: Sequence[str]) -> None:
    """A pattern of `training.groups` that names no weight that trains."""
    for i, group in enumerate(scenario.training.groups):
        for pattern in group.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                expected = f"a pattern that names weights that train, such as {names[0]!r}"
                raise Refused(f"training.groups.{i}.patterns", repr(pattern), expected)


def _refuse_home_without_state(scenario: Scenario, home: Collection[str]) -> None:
    """Weights that would stay at home where clients keep nothing."""
    if home and not scenario.keeps_client_state:
        got = f"{scenario.model.kind}, whose {next(iter(home))} stays at home"
        raise Refused("model.kind", got, "a Section with trains_home = True, so that clients keep it")


def refuse_augment(learner: Learner) -> None:
    """Changes of samples that are no images, or not of that size."""
    if learner.context.augment:
        learner.refuse_augment(learner.blank_shard(2))


def refuse_rule(scenario: Scenario, rule: Rule) -> None:
    """A rule for which a topology has no place: what it gathers, sends or does on a client."""
    topology = scenario.topology
    kind = scenario.aggregation.kind
    if topology.reduces_among_clients and not rule.accumulator.adds_up:
        got = f"{kind} with topology.reduce allreduce"
        raise Refused("aggregation.kind", got, "topology.reduce server: a ring can only add")
    if topology.mixes_models and any(_overrides(rule, Rule, n) for n in ("step", "combine_with_state")):
        expected = "one whose server keeps nothing between rounds: each node has a model of its own"
        raise Refused("aggregation.kind", f"{kind} in {topology.kind}", expected)
    client_methods = [name for name in ("on_client_start", "on_client_end") if _overrides(rule, Rule, name)]
    if topology.splits_model and client_methods:
        got = f"{kind}, which has {client_methods[0]}"
        expected = "topology.kind parallel or relay: in a split no client has the whole model"
        raise Refused("aggregation.kind", got, expected)
    if scenario.secure_aggregation and (
        rule.accumulator is not ExactSum or _overrides(rule, Rule, "contribution")
    ):
        got = f"{kind} with secure aggregation, which makes its own of single updates"
        raise Refused("aggregation.kind", got, "a rule that adds updates up as they are")
    if scenario.network.uplink.superposes and (
        rule.accumulator is not ExactSum
        or rule.summed != rule.layout.numel
        or _overrides(rule, Rule, "contribution")
    ):
        got = f"{kind} with an uplink {scenario.network.uplink.kind}, which makes its own of single updates"
        raise Refused("aggregation.kind", got, "a rule that adds updates up as they are")
    sends_more = rule.sent > rule.layout.numel or _overrides(rule, Rule, "contribution")
    if sends_more and (topology.splits_model or topology.hands_model_on):
        expected = "topology.kind parallel, where each client sends the server an update"
        raise Refused("aggregation.kind", f"{kind}, which makes its own of what a client sends", expected)


def refuse_hooks(scenario: Scenario, chain: HookChain) -> None:
    """Hooks for which a topology has no place."""
    topology = scenario.topology
    if looking := chain.sees_each_at_server:
        private = scenario.privacy is not None and looking == [scenario.privacy.kind]
        key = "privacy.kind" if private else "aggregation.transforms"
        if topology.reduces_among_clients:
            expected = "topology.reduce server: in a ring the server sees the sum alone"
            raise Refused(key, ", ".join(looking), expected)
        if scenario.secure_aggregation or scenario.network.uplink.superposes:
            expected = "none that looks at each update at the server, which sees their sum alone"
            raise Refused(key, ", ".join(looking), expected)
    written = [codec.section.kind for codec in chain.codecs]
    superposes = scenario.network.uplink.superposes
    if written and (
        superposes or topology.hands_model_on or topology.splits_model or topology.reduces_among_clients
    ):
        expected = "topology.kind parallel with reduce: server, where updates are written as bytes"
        if superposes:
            expected = "none that writes bytes: what adds up on the air is plain numbers"
        raise Refused("aggregation.transforms", ", ".join(written), expected)


def refuse_experience(scenario: Scenario, learner: Learner) -> None:
    """A learner whose samples depend on the weights that a client received, where a client has not all of
    them, or where samples are looked at beside its local update."""
    if not _overrides(learner, Learner, "experience"):
        return
    kind = scenario.model.kind
    topology = scenario.topology
    if topology.splits_model:
        got = f"{topology.kind} for a {kind}, which needs the whole model to make its samples"
        raise Refused("topology.kind", got, "parallel or relay")
    if topology.relay_defence is not None:
        got = f"{topology.relay_defence.kind} for a {kind}, whose samples follow from the model"
        raise Refused("topology.relay_defence", got, "none: two models are compared on the same samples")
    if scenario.privacy is not None and scenario.privacy.in_local_update:
        got = f"{scenario.privacy.kind} for a {kind}, whose samples follow from one another"
        expected = "one that adds noise to updates: clipping sample by sample hides none of them"
        raise Refused("privacy.kind", got, expected)
    if scenario.evaluation.leakage is not None:
        expected = f"none for a {kind}, whose samples are gone once its local update has ended"
        raise Refused("evaluation.leakage", "one", expected)
    if scenario.aggregation.clean_samples:
        got = f"{scenario.aggregation.kind}, for which the server trains"
        raise Refused("aggregation.kind", got, f"another for a {kind}, whose samples only clients make")


def refuse_private(scenario: Scenario, rule: Rule, learner: Learner) -> None:
    """A rule whose result an update changes by nobody knows how much, and layers or numbers that DP-SGD does
    not cover."""
    privacy = scenario.privacy
    if privacy is None:
        return
    layout = rule.layout
    kind = scenario.aggregation.kind
    changes_sum = _overrides(rule, Rule, "combine") or _overrides(rule, Rule, "contribution")
    if privacy.adds_noise_to_sum and (not rule.accumulator.adds_up or changes_sum):
        expected = "a rule that takes the mean of the updates: nothing else has a bound that noise follows"
        raise Refused("aggregation.kind", f"{kind} with privacy {privacy.kind}", expected)
    if not privacy.in_local_update:
        return
    for part, model in learner.parts.items():
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
                expected = "layers without it (GroupNorm): there a sample's gradient depends on its batch"
                raise Refused("model", f"{part}.{name}, a BatchNorm, with privacy {privacy.kind}", expected)
    if layout.numel > layout.trained:
        got = f"{layout.names[-1]}, which travels without a gradient"
        raise Refused("privacy.kind", f"{privacy.kind} for {got}", "a model all of whose numbers train")


def refuse_gang(scenario: Scenario, learner: Learner, tuning: Tuning, tuned: Tuned) -> None:
    """A model whose clients cannot train in one forward pass as each would alone.

    Args:
        scenario: with `runtime.gang`.
        learner: on the meta device, with what trains.
        tuning: that was applied to it.
        tuned: what that gave.
    """
    if scenario.runtime.gang == 1:
        return
    got = f"{scenario.runtime.gang} with "
    if not learner.stages:
        raise Refused("runtime.gang", f"{got}a learner without stages", "1, or a learner with stages")
    for part, model in learner.parts.items():
        if any(p.requires_grad for p in model.parameters()):
            for name, module in model.named_modules():
                # an attention of transformers holds its rate as a number
                rate = module.p if isinstance(module, nn.Dropout) else vars(module).get("dropout")
                if isinstance(rate, float) and rate > 0:
                    expected = "1: what clients drop would depend on who trains beside them"
                    raise Refused("runtime.gang", f"{got}{part}.{name}, which drops {rate:g}", expected)
    parameters = {n: t for n, t in {**tuned.home, **tuned.travelling}.items() if isinstance(t, nn.Parameter)}
    sizes = [parameter.numel() for parameter in parameters.values()]
    rows = torch.empty(1, sum(sizes), device="meta")
    with tuning.batched(learner, places(list(parameters), sizes), rows, rows):  # refuses its layers
        pass


def _overrides(thing: Any, base: type, method: str) -> bool:
    return getattr(type(thing), method) is not getattr(base, method)
