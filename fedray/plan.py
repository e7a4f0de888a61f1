"""Schedule and clock without an executor: what a scenario needs and costs, before anything trains."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedray.check import readable
from fedray.cuts import CutWork, all_cuts
from fedray.data import form
from fedray.data.partition import partition
from fedray.data.samples import Array
from fedray.data.sources import to_download
from fedray.network.clock import Ledger, time_round
from fedray.network.links import When
from fedray.network.radio import Radio
from fedray.packing import Node, pack
from fedray.rounds import Shared, schedule_round, shared
from fedray.scenario import Loaded, Refused, Scenario
from fedray.scenario.data import CelebA
from fedray.scenario.topology import Split
from fedray.schedule import Generate
from fedray.workload import Workload, measure

AS_COUNTED = ["parameters", "trainable_parameters", "payload_bytes", "client_state_bytes", "export_files"]
AS_COUNTED += ["flops_per_sample", "flops_per_picture"]


def plan(loaded: Loaded) -> dict[str, Any]:
    """`fedray plan --json`'s object; for a sweep `variants`, one each. The same schedules and the same clock as a run's.

    Raises:
        ScenarioError: for whatever `run` would refuse before it trains, but for missing weights.
    """
    scenario = loaded.scenario
    if scenario.sweep:
        return {"name": scenario.name, "variants": {name: plan(variant) for name, variant in loaded.variants.items()}}
    try:
        known = _shared(loaded)
        scenario = settled(scenario, loaded.folder, known)
        workload = measure(scenario, loaded.folder)
        cuts: list[dict[str, Any]] = []
        if isinstance(scenario.topology, Split):
            anywhere = at(scenario, "auto", scenario.topology.tail and "auto")
            cuts = [_about(scenario, cut, cost) for cut, cost in costs(anywhere, loaded.folder, known)]
        work, total = workload.of(scenario, known.samples), Ledger()
        radio = Radio(scenario.network, scenario.population.clients, scenario.seed, loaded.folder)
        feasible(scenario, radio, workload, known)
        pictures = 0
        for t in range(1, scenario.training.rounds + 1):
            schedule = schedule_round(scenario, radio, t, known, work, total.sim_time_s)
            total = total.add(time_round(schedule, work, radio, total.sim_time_s))
            pictures += sum(step.pictures for step in schedule if isinstance(step, Generate))
    except Refused as e:
        raise loaded.error([e]) from None
    packing = pack(scenario, [Node(float(os.cpu_count() or 1), torch.cuda.device_count())])
    sites = {"sites": {s: sum(place.site == s for place in packing.places) for s in scenario.sites}} if scenario.sites else {}
    rounds = scenario.training.rounds
    return {
        "name": scenario.name,
        "actors": {"executor": scenario.runtime.executor, "client": len(packing.places), "server": 1, "evaluator": 1} | sites,
        "cpus_per_actor": packing.places[0].cpus,
        "gpus_per_actor": packing.places[0].gpus,
        "memory_bytes": workload.memory_bytes(scenario.training.precision),
        **{name: getattr(workload, name) for name in AS_COUNTED},
        "payload_bytes_downlink": max(workload.downlink_bytes),  # of the client that gets most
        "payload_bytes_uplink": max(workload.uplink_bytes),
        "payload_bytes_sidelink": workload.payload_bytes,
        "export_bytes": next(iter(workload.export_files.values())),
        "pictures": pictures,
        "rounds": rounds,
        "per_round": {k: v / rounds if isinstance(v, float) or v % rounds else v // rounds for k, v in asdict(total).items()},
        "total": asdict(total),
    } | ({"cut": workload.cut.name, "cuts": cuts} if workload.cut else {})


def settled(scenario: Scenario, folder: Path, known: Shared) -> Scenario:
    """The same with `auto` cuts settled: those with which the first round takes the least time, or energy.

    Raises:
        Refused: where no cut is allowed, or fits the devices.
    """
    topology = scenario.topology
    if not isinstance(topology, Split) or "auto" not in (topology.cut, topology.tail):
        return scenario
    cost = "sim_time_s" if topology.choose == "time" else "energy_j"
    best, _ = min(costs(scenario, folder, known), key=lambda found: getattr(found[1], cost))
    return at(scenario, best.cut, best.tail)


def at(scenario: Scenario, cut: str, tail: str | None) -> Scenario:
    return scenario.model_copy(update={"topology": scenario.topology.model_copy(update={"cut": cut, "tail": tail})})


def costs(scenario: Scenario, folder: Path, known: Shared) -> list[tuple[CutWork, Ledger]]:
    """Every cut that is allowed and fits the devices, and what the first round costs with it.

    Raises:
        Refused: where there is none.
    """
    cuts = all_cuts(scenario, folder)
    anywhere = measure(at(scenario, cuts[0].cut, cuts[0].tail), folder)
    radio = Radio(scenario.network, scenario.population.clients, scenario.seed, folder)
    found: list[tuple[CutWork, Ledger]] = []
    refused: Refused | None = None
    for cut in cuts:
        this, workload = at(scenario, cut.cut, cut.tail), anywhere.at(cut)
        try:
            feasible(this, radio, workload, known)
        except Refused as e:
            refused = e
            continue
        work = workload.of(this, known.samples)
        found.append((cut, Ledger().add(time_round(schedule_round(this, radio, 1, known, work), work, radio, 0.0))))
    if not found and refused is not None:
        raise refused
    return found


def _about(scenario: Scenario, cut: CutWork, first_round: Ledger) -> dict[str, Any]:
    batch = scenario.training.batch_size
    return {
        "cut": cut.cut,
        "tail": cut.tail,
        "flops_per_sample": cut.side_flops,
        "parameters": cut.parameters,
        "part_bytes": cut.part_bytes,
        "bytes_per_batch": {crossing: sizes[batch] for crossing, sizes in cut.bytes.items()},
        "first_round": asdict(first_round),
    }


def _shared(loaded: Loaded) -> Shared:
    """Samples of each client. What lies at a site cannot be counted from here, and need not where turns are steps."""
    scenario, data = loaded.scenario, loaded.scenario.data
    if (coming := to_download(data, loaded.folder)) is not None:
        if isinstance(data, CelebA) and (data.partition.kind == "dirichlet" or scenario.population.selection != "random"):
            raise Refused("data.partition.kind", "labels of faces that are not there yet", "a partition without labels, or the data")
        names = form(data, loaded.folder).label_names  # the other sets have equally many of each, and only how many matters
        stand_in = Array(lambda: np.empty(0, np.uint8), np.arange(coming) % len(names), names)
        return shared(scenario, stand_in, partition(scenario, stand_in))
    if not scenario.sites:
        return shared(scenario, *readable(loaded))
    if scenario.training.local_steps is None:
        raise Refused("training.local_epochs", "epochs over data that lies at sites", "local_steps, whose cost is known from here")
    return Shared([0] * scenario.population.clients)


def feasible(scenario: Scenario, radio: Radio, workload: Workload, shared: Shared) -> None:
    """What a network cannot do, whoever is drawn.

    Raises:
        Refused: for a model that does not fit a device's memory, or a deadline that nobody can meet.
    """
    needed = workload.memory_bytes(scenario.training.precision)
    for processor in (*radio.devices.kinds, radio.server):
        who = "server" if processor is radio.server else "client"
        if processor.memory_bytes is not None and needed[who] > processor.memory_bytes:
            key = f"network.{'server' if who == 'server' else 'device'}.memory_bytes"
            raise Refused(key, f"{processor.memory_bytes:.3g} for a larger model", f"at least {needed[who]:.3g}, activations not counted")
    if (deadline := scenario.network.deadline_s) is not None and workload.cut is None:
        at_once = scenario.population.a_round if getattr(scenario.network.uplink, "allocation", "equal") == "equal" else 1
        takes = radio.finishes_s(When(1, 0.0), workload.of(scenario, shared.samples), shared.eligible(scenario), at_once)
        if takes.min() > deadline:
            raise Refused("network.deadline_s", deadline, f"at least {takes.min():.4g}, when the fastest client finishes")
