"""Schedule and clock without an executor: what a scenario needs and costs, before anything trains."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedray.checks import readable
from fedray.data import Dataset
from fedray.data.clients import partition
from fedray.network.clock import time_round
from fedray.network.ledger import Ledger
from fedray.network.radio import Radio
from fedray.network.work import Work
from fedray.planning.asked import NOTHING
from fedray.planning.bidding import agree_on_cut
from fedray.planning.client_costs import split_work
from fedray.planning.cuts import CutWork, all_cuts
from fedray.planning.feasible import TooLittle, feasible
from fedray.planning.fine_tuning import collect, fine_tuning
from fedray.planning.placement import Node, pack, ray_address, refuse_crowded
from fedray.planning.round import schedule_round
from fedray.planning.rounds import rounds_of
from fedray.planning.shared import Shared, samples_to_come, shared
from fedray.planning.workload import Workload, measure
from fedray.privacy.accounting import facts, with_noise
from fedray.scenario import Loaded, Refused, Scenario
from fedray.schedule import Schedule
from fedray.steps import Generate, Send

AS_COUNTED = ["parameters", "trainable_parameters", "home_parameters"]
AS_COUNTED += ["payload_bytes", "client_state_bytes", "export_files"]
AS_COUNTED += ["flops_per_sample", "encode_flops_per_sample", "preparation_flops", "flops_per_picture"]


def plan(loaded: Loaded, so_far: Ledger = NOTHING) -> dict[str, Any]:
    """`fedray plan --json`'s object; for a sweep `variants`, one each. The same schedules and the same clock
    as a run's. `so_far`: what was spent before it.

    Raises:
        ScenarioError: for whatever `run` would refuse before it trains, but for missing weights.
    """
    import torch  # not with this module: the driver of a run on Ray, or of a sweep, does without

    scenario = loaded.scenario
    if scenario.sweep:
        return {
            "name": scenario.name,
            "variants": {name: plan(variant) for name, variant in loaded.variants.items()},
        }
    try:
        dataset = Dataset.of(scenario, loaded.folder)
        known = _shared(loaded, dataset)
        scenario, known = settle(scenario, loaded.folder, known, dataset)
        scenario = with_noise(scenario, known.samples)
        workload = measure(scenario, loaded.folder, dataset)
        work = workload.of(scenario, known.samples)
        first = fine_tuning(loaded)
        collected = collect(loaded)
        before = NOTHING if collected is None else collected.ledger
        tuned = None if first is None else plan(first, before)
        start = so_far if tuned is None else Ledger(**tuned["total"])
        radio = Radio(scenario.network, scenario.population.clients, scenario.seed, loaded.folder)
        feasible(scenario, radio, workload, known)
        here = [Node(float(os.cpu_count() or 1), torch.cuda.device_count())]
        if ray_address() == "local":
            refuse_crowded(scenario, here)
        cuts: list[dict[str, Any]] = []
        if scenario.topology.splits_model:
            anywhere = with_cut(scenario, "auto", scenario.split.tail and "auto")
            cuts = [_about(scenario, *result) for result in costs(anywhere, loaded.folder, known, dataset)]
        total, sums = _simulated(scenario, radio, work, known, start)
    except Refused as e:
        raise loaded.error([e]) from None
    rounds = scenario.training.rounds
    return {
        "name": scenario.name,
        **_actors(scenario, here),
        "memory_bytes": workload.memory_bytes(scenario.training.precision, scenario.runtime.base_precision),
        **{name: getattr(workload, name) for name in AS_COUNTED},
        **_sent(scenario, workload),
        "export_bytes": next(iter(workload.export_files.values())),
        **sums,
        "notes": [*workload.notes, *([] if collected is None else [collected.note])],
        "rounds": rounds,
        "per_round": _each(start.totals(), total.totals(), rounds),
        "total": total.totals(),
        **({} if tuned is None else {"generator": tuned}),
        **({} if collected is None else {"collected": before.totals() | {"images": sum(collected.images)}}),
        **({} if scenario.privacy is None else {"privacy": facts(scenario, known.samples)}),
    } | ({"cut": workload.cut.name, "cuts": cuts} if workload.cut else {})


def _simulated(
    scenario: Scenario, radio: Radio, work: Work, known: Shared, start: Ledger
) -> tuple[Ledger, dict[str, Any]]:
    """What all rounds cost, and what else the plan says of them. Takes and raises what `simulate_rounds`
    does."""
    total = start
    pictures = 0
    stacked: list[bool] = []
    for schedule, total in simulate_rounds(scenario, radio, work, known, start):  # noqa: B007
        pictures += sum(step.pictures for step in schedule if isinstance(step, Generate))
        stacked += _stacked(schedule, work)
    sums: dict[str, Any] = {"pictures": pictures}
    if stacked:
        sums["changes_sent"] = {"stacked": sum(stacked), "whole": stacked.count(False)}
    return total, sums


def _stacked(schedule: Schedule, work: Work) -> list[bool]:
    """For each time that a change of base weights goes down in a round, whether it does as stacked
    adapters."""
    if not schedule.stacks:
        return []
    down = (step for step in schedule if isinstance(step, Send) and step.brings_model)
    return [work.load(step) < work.send_bytes("downlink", step.receiver) for step in down]


def _sent(scenario: Scenario, workload: Workload) -> dict[str, int]:
    """What goes each way of the client with most: bytes, and symbols where updates add up on the air."""
    sent = {f"payload_bytes_{way}": max(each) for way, each in workload.sent(scenario).items()}
    return sent | ({"symbols_uplink": workload.uplink_symbols} if workload.uplink_symbols else {})


def _each(start: dict[str, Any], end: dict[str, Any], rounds: int) -> dict[str, Any]:
    """What each of so many rounds costs, between these totals.

    Args:
        start: before the first.
        end: after the last.
        rounds: how many.
    """
    spent = {k: v - start.get(k, 0) for k, v in end.items()}
    return {k: v / rounds if isinstance(v, float) or v % rounds else v // rounds for k, v in spent.items()}


def _actors(scenario: Scenario, nodes: list[Node]) -> dict[str, Any]:
    """Who runs it on these nodes, and what each has."""
    packing = pack(scenario, nodes)
    actors: dict[str, Any] = {
        "executor": scenario.runtime.executor,
        "client": len(packing.places),
        "server": 1,
        "evaluator": 1,
    }
    if scenario.sites:
        actors["sites"] = {s: sum(place.site == s for place in packing.places) for s in scenario.sites}
    return {
        "actors": actors,
        "cpus_per_actor": packing.places[0].cpus,
        "gpus_per_actor": packing.places[0].gpus,
    }


def simulate_rounds(
    scenario: Scenario, radio: Radio, work: Work, known: Shared, total: Ledger = NOTHING
) -> Iterator[tuple[Schedule, Ledger]]:
    """Every round's schedule, and what all rounds up to it cost.

    Args:
        scenario: whose.
        radio: its network.
        work: what steps take.
        known: what the server knows of its clients.
        total: what was spent before the first.

    Raises:
        Refused: for a relay in which a device has nobody in range in some round.
    """
    rounds = rounds_of(scenario, radio, work, known, total)
    for t in range(1, scenario.training.rounds + 1):
        schedule = rounds.schedule(t, total)
        total = total.add(rounds.events(schedule, total), schedule)
        yield schedule, total


def refuse_out_of_reach(scenario: Scenario, radio: Radio, work: Work, known: Shared) -> None:
    """Raises Refused for a relay in which a device has nobody in range in some round.

    Args:
        scenario: whose.
        radio: its network.
        work: what steps take.
        known: what the server knows of its clients.
    """
    if scenario.topology.needs_neighbours and not radio.links["sidelink"].reaches_all:
        for _ in simulate_rounds(scenario, radio, work, known):
            pass


def settle(
    scenario: Scenario, folder: Path, known: Shared, dataset: Dataset | None = None
) -> tuple[Scenario, Shared]:
    """What is decided once, before the first round: where a model is cut that says auto, and who takes part
    in every round where clients bid for cuts.

    Args:
        scenario: of a run.
        folder: where its relative paths start.
        known: how many samples each client has.
        dataset: its data, where they are open already.

    Raises:
        Refused: where no cut is allowed, or fits the devices, or nobody wins.
    """
    if scenario.incentive is None or scenario.incentive.bids_for != "cut":
        return resolve_auto_cut(scenario, folder, known, dataset), known
    fitting = _fitting_cuts(scenario, folder, known, dataset)
    samples = known.samples
    works = [split_work(this, workload.of(this, samples), cut, samples) for this, cut, workload in fitting]
    radio = Radio(scenario.network, scenario.population.clients, scenario.seed, folder)
    place, agreed = agree_on_cut(scenario, radio, works, known.eligible(scenario), samples)
    return fitting[place][0], replace(known, agreed=agreed)


def resolve_auto_cut(
    scenario: Scenario, folder: Path, known: Shared, dataset: Dataset | None = None
) -> Scenario:
    """The same with `auto` cuts settled: those with which the first round takes the least time, or energy.

    Args:
        scenario: whose split has a cut or a tail `auto`; any other stays as it is.
        folder: where its relative paths start.
        known: how many samples each client has.
        dataset: its data, where they are open already.

    Raises:
        Refused: where no cut is allowed, or fits the devices.
    """
    if not scenario.topology.chooses_cut:
        return scenario
    cost = "sim_time_s" if scenario.split.choose == "time" else "energy_j"
    result = costs(scenario, folder, known, dataset)
    best, *_ = min(result, key=lambda each: (-each[2], getattr(each[1], cost)))
    return with_cut(scenario, best.cut, best.tail)


def with_cut(scenario: Scenario, cut: str, tail: str | None) -> Scenario:
    return scenario.model_copy(
        update={"topology": scenario.topology.model_copy(update={"cut": cut, "tail": tail})}
    )


def costs(
    scenario: Scenario, folder: Path, known: Shared, dataset: Dataset | None = None
) -> list[tuple[CutWork, Ledger, int]]:
    """Every cut that is allowed and fits the devices, what the first round costs with it, and how many
    clients finish it.

    Args:
        scenario: whose topology is a split.
        folder: where its relative paths start.
        known: how many samples each client has.
        dataset: its data, where they are open already.

    Raises:
        Refused: where there is none.
    """
    radio = Radio(scenario.network, scenario.population.clients, scenario.seed, folder)
    result: list[tuple[CutWork, Ledger, int]] = []
    for this, cut, workload in _fitting_cuts(scenario, folder, known, dataset):
        work = workload.of(this, known.samples)
        schedule = schedule_round(this, radio, 1, known, work)
        events = time_round(schedule, work, radio, 0.0)
        finish = len(schedule.prune({e.id: e.outcome for e in events}).clients)
        result.append((cut, Ledger().add(events), finish))
    return result


def _fitting_cuts(
    scenario: Scenario, folder: Path, known: Shared, dataset: Dataset | None
) -> list[tuple[Scenario, CutWork, Workload]]:
    """Every cut that is allowed and fits the devices, with its scenario and workload. Takes and raises what
    `costs` does.

    Args:
        scenario: whose topology is a split.
        folder: where its relative paths start.
        known: how many samples each client has.
        dataset: its data, where they are open already.
    """
    cuts = all_cuts(scenario, folder, dataset)
    anywhere = measure(with_cut(scenario, cuts[0].cut, cuts[0].tail), folder, dataset)
    radio = Radio(scenario.network, scenario.population.clients, scenario.seed, folder)
    result: list[tuple[Scenario, CutWork, Workload]] = []
    refused: list[TooLittle] = []
    for cut in cuts:
        this = with_cut(scenario, cut.cut, cut.tail)
        workload = anywhere.at(cut)
        try:
            feasible(this, radio, workload, known)
        except TooLittle as e:
            refused.append(e)
            continue
        result.append((this, cut, workload))
    # what would do with the cut that asks the least; of one that fits the memories, how much later the
    # deadline
    if not result:
        raise min(refused, key=lambda e: (e.key != "network.deadline_s", e.least))
    return result


def _about(scenario: Scenario, cut: CutWork, first_round: Ledger, finish: int) -> dict[str, Any]:
    batch = scenario.training.batch_size
    return {
        "cut": cut.cut,
        "tail": cut.tail,
        "flops_per_sample": cut.side_flops,
        "parameters": cut.parameters,
        "part_bytes": cut.part_bytes,
        "bytes_per_batch": {crossing: sizes[batch] for crossing, sizes in cut.bytes.items()},
        **({"symbols_per_batch": {c: n * batch for c, n in cut.symbols.items()}} if cut.symbols else {}),
        "first_round": first_round.totals() | {"clients": finish},
    }


def _shared(loaded: Loaded, dataset: Dataset) -> Shared:
    """Samples of each client. What lies at a site cannot be counted from here, and need not where turns are
    steps (but for what encoding it takes once, which is left out then)."""
    scenario = loaded.scenario
    if (expected := samples_to_come(loaded, dataset)) is not None:
        return shared(scenario, expected, partition(scenario, expected))
    if not scenario.sites:
        return shared(scenario, *readable(loaded, dataset))
    if scenario.training.local_steps is None:
        raise Refused(
            "training.local_epochs",
            "epochs over data that lies at sites",
            "local_steps, whose cost is known from here",
        )
    return Shared([0] * scenario.population.clients)
