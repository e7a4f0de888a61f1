"""Work known before it is done: FLOPs counted once on meta tensors, bytes from the buffer's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedray.data import Dataset
from fedray.network.work import Work
from fedray.planning.counting import (
    choose_flops_per_sample,
    class_images,
    client_state_numbers,
    evaluate_flops_per_sample,
    flops_per_sample,
    forward_flops,
    own_flops_per_sample,
    quantizable_parameters,
    uplink_bytes,
    validate_flops_per_sample,
    waits_s,
)
from fedray.planning.cuts import CutWork, cut_work, refusal
from fedray.planning.notes import notes_of
from fedray.scenario.kinds import user_kinds
from fedray.scenario.plugins import modules_of
from fedray.scenario.quantized_formats import QUANTIZED
from fedray.scenario.scenario import Scenario

if TYPE_CHECKING:
    from fedray.aggregation.rule import Rule
    from fedray.learners.learner import Learner
    from fedray.tuning.tuning import Tuned


@dataclass(frozen=True)
class Workload:
    parameters: int  # of the parts a tuning may train or must run
    trainable_parameters: int
    payload_bytes: int  # the buffer's
    # with what the rule sends beside it; one for each of tuning.ranks, which clients take in turn
    downlink_bytes: tuple[int, ...]
    uplink_bytes: tuple[int, ...]  # with that, as the transforms encode it
    summed_bytes: int  # of what the rule adds up, which is what goes round a ring
    # of the updates of a round that a rule compares one by one, kept by the server
    gathered_bytes: int
    client_state_bytes: int  # kept for each client that has taken part
    flops_per_sample: float
    export_files: dict[str, int]
    change_bytes: int = 0  # of what goes down: how base weights have changed, where a rule changes them
    home_parameters: int = 0  # that train and stay with their client
    flops_per_picture: float = 0.0  # that augmentation's generator paints, or the server for model.prior
    picture_bytes: int = 0
    # channel uses of a client's update in place of bytes, where updates add up on the air
    uplink_symbols: int = 0
    score_flops: float = 0.0  # of classifying a generated picture, where clients score some
    validate_flops_per_sample: float = 0.0  # of two models, where a relay's receivers try what they get
    evaluate_flops_per_sample: float = 0.0  # of a model, where the server evaluates some to weigh them
    encode_flops_per_sample: float = 0.0  # once, by frozen networks, whose output a client keeps
    preparation_flops: float = 0.0  # once a client, however many samples it has
    experience_flops_per_sample: float = 0.0  # in every local update, before its first step
    own_flops_per_sample: float = 0.0  # of a step for a client's own model, whose result stays at home
    choose_flops_per_sample: float = 0.0  # of several global models, of which a client chooses one
    waits_s: tuple[float, ...] = ()  # of each client's local update, where its samples take time to be made
    server_trains: bool = False  # as a client does, for the rule
    notes: tuple[str, ...] = ()  # what a person should know before it trains
    cut: CutWork | None = None  # of a split model
    quantizable_parameters: int = 0  # that runtime.base_precision can quantize

    def at(self, cut: CutWork) -> Workload:
        """The same model, cut elsewhere."""
        return replace(
            self,
            cut=cut,
            payload_bytes=cut.part_bytes,
            downlink_bytes=(cut.part_bytes,),
            uplink_bytes=(cut.part_bytes,),
        )

    def sent(self, scenario: Scenario) -> dict[str, tuple[int, ...]]:
        """Bytes of what goes each way, of each kind of client."""
        if scenario.topology.reduces_among_clients:
            return {
                "downlink": self.downlink_bytes,
                "uplink": (self.summed_bytes,),
                "sidelink": (self.summed_bytes,),
            }
        return {
            "downlink": self.downlink_bytes,
            "uplink": self.uplink_bytes,
            "backhaul": (self.payload_bytes,),
            "sidelink": (self.payload_bytes + scenario.topology.beside_model_bytes,),
        }

    def memory_bytes(self, precision: str, base: str | None = None) -> dict[str, int]:
        """Weights, masters, gradients, two optimizer moments and two buffers of an actor; activations come on
        top. Text encoders that do not train are among the weights, as they are there while captions are
        encoded; on a GPU, activations of training then come where these were.

        Args:
            precision: the scenario's `training.precision`.
            base: its `runtime.base_precision`.
        """
        form = None if base is None else QUANTIZED.get(base)
        in_fp32 = precision == "fp32" or base == "fp32" or (form is not None and form.beside_fp32)
        width = 4 if in_fp32 else 2
        trainable = self.trainable_parameters
        if (cut := self.cut) is not None:
            gathered = {"server": self.gathered_bytes}
            return {
                side: n * width + cut.trainable[side] * 16 + 2 * self.payload_bytes + gathered.get(side, 0)
                for side, n in cut.parameters.items()
            }
        weights = self.parameters * width
        if form is not None:
            weights -= int(self.quantizable_parameters * (width - form.bits / 8))
        # the server's own, where less precision is sent
        master = 4 * trainable if self.payload_bytes < 4 * trainable else 0
        client = weights + trainable * 16 + 2 * self.payload_bytes
        own = client if self.server_trains else 0
        return {
            "client": client,
            "server": trainable * 8 + 3 * self.payload_bytes + master + self.gathered_bytes + own,
        }

    def of(self, scenario: Scenario, samples: Sequence[int]) -> Work:
        """The steps' work where client k holds `samples[k]` samples."""
        travelling = self.trainable_parameters - self.home_parameters
        encodes = self.encode_flops_per_sample
        prepares = self.preparation_flops
        # the server, which may train on pictures, has none
        own = dict(enumerate(samples))
        sent = self.sent(scenario)
        aggregation = scenario.aggregation
        clean = aggregation.clean_samples
        root_flops = self.flops_per_sample * scenario.training.trained(clean) if clean else 0.0

        def experienced(client: int) -> int:
            """Samples that a client makes anew in its local update, where its learner does."""
            return 0 if scenario.trains_nothing(client) else own.get(client, 0)

        return Work(
            train_flops=lambda client, pictures: (
                self.flops_per_sample * scenario.local_samples(client, own.get(client, 0) + pictures)
                + self.own_flops_per_sample * scenario.own_samples(client, own.get(client, 0) + pictures)
                + self.choose_flops_per_sample * own.get(client, 0)
                + self.experience_flops_per_sample * experienced(client)
            ),
            part_flops=lambda client, n: self.flops_per_sample * scenario.local_samples(client, n),
            send_bytes=lambda direction, client: sent[direction][client % len(sent[direction])],
            aggregate_flops=lambda updates: travelling * aggregation.operations(updates) + root_flops,
            generate_flops=self.flops_per_picture,
            score_flops=self.score_flops,
            picture_bytes=self.picture_bytes,
            change_bytes=self.change_bytes,
            uplink_symbols=self.uplink_symbols,
            state_bytes=self.client_state_bytes,
            encode_flops=(lambda client: encodes * own.get(client, 0) + prepares)
            if encodes or prepares
            else None,
            validate_flops=lambda client: self.validate_flops_per_sample * own.get(client, 0),
            evaluate_flops=self.evaluate_flops_per_sample,
            pass_flops=lambda stage, n: n * self.cut.flops[stage] if self.cut else 0.0,
            crossing_bytes=lambda crossing, n: self.cut.bytes[crossing][n] if self.cut else 0,
            crossing_symbols=lambda crossing, n: n * self.cut.symbols.get(crossing, 0) if self.cut else 0,
            waits_s=(lambda client: self.waits_s[client] if experienced(client) else 0.0)
            if self.waits_s
            else None,
        )


def measure(scenario: Scenario, folder: Path, dataset: Dataset | None = None) -> Workload:
    """Counts a scenario's model on the meta device: no weights, no memory. `dataset`: its data, where they
    are open already.

    Raises:
        Refused: for a base model, tuning targets or a judge that are not there.
    """
    from fedray.adversary.attack import AttackSuccess
    from fedray.adversary.attackers import attacks
    from fedray.evaluation.evaluate import verify

    dataset = dataset or Dataset.of(scenario, folder)
    verify(scenario, folder, dataset, [AttackSuccess(attacks(scenario))])
    _refuse_prompts(scenario, dataset)
    planner = scenario.companion_planner()
    if planner is not None:
        planner.verify(folder, dataset)
    counted_by = _counted_by(scenario, folder)
    if counted_by not in _counted:  # a sweep's variants often are the same
        _counted[counted_by] = _count(scenario, folder, dataset)
    counted = _counted[counted_by]
    notes = (*notes_of(scenario, folder, dataset), *counted.notes)
    return replace(counted, notes=notes, waits_s=waits_s(scenario, dataset))


def _refuse_prompts(scenario: Scenario, dataset: Dataset) -> None:
    """Raises Refused for prompts from which the model cannot generate."""
    from fedray.learners.learners import learner_class

    if (prompts := scenario.evaluation.prompts) and scenario.model.built_for_data:
        learner_class(scenario.model).refuse_prompts(scenario.model, prompts, dataset.info)


_counted: dict[tuple[str, ...], Workload] = {}


def _counted_by(scenario: Scenario, folder: Path) -> tuple[str, ...]:
    """Everything that a workload depends on."""
    sections = (scenario.model, scenario.tuning, scenario.data, scenario.aggregation, scenario.companion)
    groups = scenario.training.groups
    topology = scenario.topology
    on = [repr(section) for section in (*sections, *groups)]
    on += [module.sha256 for module in modules_of(user_kinds(scenario))]
    on += [repr(scenario.secure_aggregation), repr(scenario.topology.relay_defence)]
    on += [scenario.payload, str(folder), topology.kind, str(topology.reduces_among_clients)]
    on += [str(scenario.runtime.gang > 1), repr(scenario.privacy)]  # for what is refused
    on += [str(_updates(scenario)), str(scenario.population.clients)]
    on.append(str(scenario.evaluation.update_cosines_every))
    on += [str(scenario.gathers_updates), str(scenario.validation_images)]
    on += [repr(scenario.personal), str(scenario.network.uplink.superposes)]
    if topology.splits_model:
        on += [repr(topology), str(scenario.training.batch_size)]
        on += [str(scenario.network.uplink.carries_symbols), str(scenario.incentive is None)]
    return tuple(on)


def _updates(scenario: Scenario) -> int:
    """How many updates the server gets in a round, at most."""
    return scenario.topology.updates(scenario.population.clients_selected)


def _gathered_bytes(scenario: Scenario, rules: Rule) -> int:
    """What the server keeps of single updates, for the rule or for whoever else looks at them, and of their
    directions, where these are compared."""
    from fedray.adversary.attackers import accumulator

    updates = _updates(scenario)
    by_attackers = accumulator(scenario, rules).kept_bytes(rules.summed, updates)
    directions = 0 if scenario.evaluation.update_cosines_every is None else 8 * rules.layout.trained
    return max(rules.server_bytes(updates, scenario.population.clients), by_attackers) + directions


def _count(scenario: Scenario, folder: Path, dataset: Dataset) -> Workload:
    from fedray.aggregation.rules import rule
    from fedray.learners.learners import for_counting
    from fedray.planning import refusals
    from fedray.transport.buffer import Layout
    from fedray.transport.compression import hook_chain
    from fedray.tuning.tunings import tuning

    learner = for_counting(scenario, folder, dataset)
    parameters = sum(p.numel() for part in learner.parts.values() for p in part.parameters())
    quantizable = quantizable_parameters(learner)
    tunes = tuning(scenario.tuning, scenario.seed, scenario.aggregation.frozen)
    tuned = tunes.apply(learner)
    layout = Layout.of(tuned.travelling, scenario.payload)
    rules = rule(scenario.aggregation, layout)
    hooks = hook_chain(scenario)
    refusals.refuse_augment(learner)
    refusals.refuse_tuned(scenario, tuned)
    refusals.refuse_rule(scenario, rules)
    refusals.refuse_hooks(scenario, hooks)
    refusals.refuse_experience(scenario, learner)
    refusals.refuse_private(scenario, rules, learner)
    refusals.refuse_gang(scenario, learner, tunes, tuned)
    left_out = tunes.left_out(layout)
    planner = scenario.companion_planner()
    companion_work = class_images(scenario, learner) if planner is None else planner.work(folder, dataset)
    whole = Workload(
        parameters=parameters,
        quantizable_parameters=quantizable,
        trainable_parameters=layout.trained + tuned.home_parameters,
        home_parameters=tuned.home_parameters,
        payload_bytes=layout.nbytes,
        downlink_bytes=tuple((rules.received - n) * layout.dtype.itemsize for n in left_out),
        uplink_bytes=uplink_bytes(scenario, rules, hooks, left_out),
        change_bytes=(rules.received - layout.numel) * layout.dtype.itemsize
        if rules.updates_base_weights
        else 0,
        summed_bytes=rules.summed * layout.dtype.itemsize,
        uplink_symbols=-(-rules.sent // 2) if scenario.network.uplink.superposes else 0,
        gathered_bytes=_gathered_bytes(scenario, rules),
        server_trains=scenario.aggregation.clean_samples > 0,
        client_state_bytes=4 * client_state_numbers(scenario, rules, hooks, tuned.home_numbers),
        flops_per_sample=flops_per_sample(learner),
        validate_flops_per_sample=validate_flops_per_sample(scenario, learner),
        score_flops=forward_flops(learner) if planner is not None else 0.0,
        evaluate_flops_per_sample=evaluate_flops_per_sample(scenario, learner),
        own_flops_per_sample=own_flops_per_sample(scenario, learner, tuned),
        choose_flops_per_sample=choose_flops_per_sample(rules, learner),
        encode_flops_per_sample=learner.encode_flops(),
        preparation_flops=learner.preparation_flops(),
        experience_flops_per_sample=learner.experience_flops(),
        notes=tuple(planner.notes(companion_work, dataset)) if planner else (),
        # Where base weights change, the adapter alone would say less than was learnt.
        export_files=tunes.base_files(learner)
        if rules.updates_base_weights
        else tunes.export_files(learner, layout),
        flops_per_picture=companion_work.flops_per_image,
        picture_bytes=companion_work.image_bytes,
    )
    return _cut(scenario, learner, tuned, whole) if scenario.topology.splits_model else whole


def _cut(scenario: Scenario, learner: Learner, tuned: Tuned, whole: Workload) -> Workload:
    """A workload cut where the scenario says.

    Args:
        scenario: whose topology is a split.
        learner: on the meta device, with what trains.
        tuned: that.
        whole: its workload.
    """
    from fedray.learners.cut import cut
    from fedray.transport.buffer import Layout

    layout = Layout.of(tuned.travelling, scenario.payload)
    (split,) = cut_work(scenario, learner, tuned, layout, [cut(learner.stages, scenario.split)])
    if reason := refusal(scenario, split):
        raise reason
    return whole.at(split)
