"""What a round is made of, counted on the meta device: operations a sample, bytes, and seconds of waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from fedray.data import Dataset
from fedray.data.clients import partition
from fedray.planning.companion import CompanionWork
from fedray.scenario.scenario import Scenario

if TYPE_CHECKING:
    from fedray.aggregation.rule import Rule
    from fedray.learners.learner import Learner
    from fedray.transport.hooks import HookChain
    from fedray.tuning.tuning import Tuned


def flops_per_sample(learner: Learner) -> float:
    """Forwards and backwards, counted on the meta device."""
    from fedray.learners.flops import counted_flops

    if learner.flops_per_sample is not None:
        return learner.flops_per_sample
    batch, samples = learner.blank_batch()
    return counted_flops(lambda: learner.loss(batch).backward()) / samples


def own_flops_per_sample(scenario: Scenario, learner: Learner, tuned: Tuned) -> float:
    """A step for a client's own model: where it trains what stays at home alone, the backward pass ends
    there."""
    if scenario.personal is None:
        return 0.0
    if not scenario.personal.trains_home_alone or learner.flops_per_sample is not None:
        return flops_per_sample(learner)
    frozen = [t for t in tuned.travelling.values() if t.requires_grad]
    for tensor in frozen:
        tensor.requires_grad_(False)
    counted = flops_per_sample(learner)
    for tensor in frozen:
        tensor.requires_grad_(True)
    return counted


def choose_flops_per_sample(rules: Rule, learner: Learner) -> float:
    """Forwards through several global models, of which a client chooses one."""
    return rules.models * forward_flops(learner) if rules.models > 1 else 0.0


def client_state_numbers(scenario: Scenario, rules: Rule, hooks: HookChain, home: int) -> int:
    """Numbers that a client keeps between its local updates.

    Args:
        scenario: whose.
        rules: its rule.
        hooks: that change an update.
        home: numbers of the model that stay with their client.
    """
    models = 0 if scenario.personal is None else scenario.personal.kept_models
    of_rules = rules.client_state_numbers + hooks.feeds_back * rules.sent
    return of_rules + home + models * (rules.layout.numel + home)


def validate_flops_per_sample(scenario: Scenario, learner: Learner) -> float:
    """Forwards through two models, where receivers validate."""
    return 2 * forward_flops(learner) if scenario.topology.relay_defence is not None else 0.0


def evaluate_flops_per_sample(scenario: Scenario, learner: Learner) -> float:
    """Forwards through a model, where the server evaluates some: to weigh them, in the first round already,
    or to find out what updates add."""
    augmentation = scenario.augmentation
    weighs = augmentation is not None and augmentation.weighting.evaluated_models(1) > 0
    return forward_flops(learner) if weighs or scenario.validation_images else 0.0


def forward_flops(learner: Learner) -> float:
    """Of a sample; of a learner that says itself what a step takes, a third of that, as the backward pass is
    two products for each one of the forward pass."""
    import torch

    from fedray.learners.flops import counted_flops

    if learner.flops_per_sample is not None:
        return learner.flops_per_sample / 3
    batch, samples = learner.blank_batch()
    with torch.no_grad():
        return counted_flops(lambda: learner.loss(batch)) / samples


def waits_s(scenario: Scenario, dataset: Dataset) -> tuple[float, ...]:
    """How long each client's requests take to be played; nothing where there are none."""
    if not scenario.data.has_environments:
        return ()
    samples = cast(Any, dataset.train)
    sizes = partition(scenario, dataset.train).sizes.tolist()
    return tuple(samples.playing_s(client, n) for client, n in enumerate(sizes))


def uplink_bytes(
    scenario: Scenario, rules: Rule, hooks: HookChain, left_out: Sequence[int]
) -> tuple[int, ...]:
    """Of each kind of client.

    Args:
        scenario: whose.
        rules: its rule.
        hooks: that write an update.
        left_out: numbers that each kind of client does not send.
    """
    if scenario.network.uplink.superposes:  # symbols go up in their place
        return (0,)
    if scenario.secure_aggregation is not None:
        return (rules.summed * scenario.secure_aggregation.word_bytes,)
    report = scenario.aggregation.report_bytes
    return tuple(hooks.encoded_bytes(rules.sent - n) + report for n in left_out)


def class_images(scenario: Scenario, learner: Learner) -> CompanionWork:
    """Of class images, where the server generates them."""
    from fedray.learners.prior import class_image_flops

    if not scenario.model.class_images_from_server:
        return CompanionWork()
    return CompanionWork(class_image_flops(learner), learner.size, 3 * learner.size**2)


def quantizable_parameters(learner: Learner) -> int:
    """How many a base in eight or four bits holds so."""
    from fedray.learners.base_precision import quantizable_numbers

    return quantizable_numbers(learner.parts)
