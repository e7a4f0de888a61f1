"""Schedule and clock without an executor: what a scenario needs and costs, before anything trains."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from fedray.check import readable
from fedray.data import form
from fedray.data.partition import partition
from fedray.data.samples import Array
from fedray.data.sources import to_download
from fedray.network.clock import Ledger, Radio, time_round
from fedray.packing import Node, pack
from fedray.rounds import Shared, schedule_round, shared
from fedray.scenario import Loaded, Refused
from fedray.scenario.data import CelebA
from fedray.schedule import Generate
from fedray.workload import measure


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
        workload = measure(scenario, loaded.folder)
    except Refused as e:
        raise loaded.error([e]) from None
    packing = pack(scenario, [Node(float(os.cpu_count() or 1), torch.cuda.device_count())])
    sites = {"sites": {s: sum(place.site == s for place in packing.places) for s in scenario.sites}} if scenario.sites else {}
    radio, work, total = Radio(scenario.network), workload.of(scenario, known.samples), Ledger()
    pictures = 0
    for t in range(1, scenario.training.rounds + 1):
        schedule = schedule_round(scenario, radio, t, known)
        total = total.add(time_round(schedule, work, radio, total.sim_time_s))
        pictures += sum(step.pictures for step in schedule if isinstance(step, Generate))
    rounds = scenario.training.rounds
    return {
        "name": scenario.name,
        "actors": {"executor": scenario.runtime.executor, "client": len(packing.places), "server": 1, "evaluator": 1} | sites,
        "cpus_per_actor": packing.places[0].cpus,
        "gpus_per_actor": packing.places[0].gpus,
        "memory_bytes": _memory(scenario.training.precision, workload.parameters, workload.trainable_parameters, workload.payload_bytes),
        "parameters": workload.parameters,
        "trainable_parameters": workload.trainable_parameters,
        "payload_bytes": workload.payload_bytes,
        "payload_bytes_downlink": max(workload.downlink_bytes),  # of the client that gets most
        "payload_bytes_uplink": max(workload.uplink_bytes),
        "payload_bytes_sidelink": workload.payload_bytes,
        "client_state_bytes": workload.client_state_bytes,
        "export_bytes": next(iter(workload.export_files.values())),
        "export_files": workload.export_files,
        "flops_per_sample": workload.flops_per_sample,
        "flops_per_picture": workload.flops_per_picture,
        "pictures": pictures,
        "rounds": rounds,
        "per_round": {k: v / rounds if isinstance(v, float) or v % rounds else v // rounds for k, v in asdict(total).items()},
        "total": asdict(total),
    }


def _shared(loaded: Loaded) -> Shared:
    """Samples of each client. What lies at a site cannot be counted from here, and need not where turns are steps."""
    scenario, data = loaded.scenario, loaded.scenario.data
    if (coming := to_download(data, loaded.folder)) is not None:
        if isinstance(data, CelebA) and (data.partition.kind == "dirichlet" or scenario.population.selection != "random"):
            raise Refused("data.partition.kind", "labels of faces that are not there yet", "a partition without labels, or the data")
        names = form(data, loaded.folder).label_names  # the other sets have equally many of each, and only how many matters
        stand_in = Array("", lambda: np.empty(0, np.uint8), np.arange(coming) % len(names), names)
        return shared(scenario, stand_in, partition(scenario, stand_in))
    if not scenario.sites:
        return shared(scenario, *readable(loaded))
    if scenario.training.local_steps is None:
        raise Refused("training.local_epochs", "epochs over data that lies at sites", "local_steps, whose cost is known from here")
    return Shared([0] * scenario.population.clients)


def _memory(precision: str, parameters: int, trainable: int, payload: int) -> dict[str, int]:
    """Weights, masters, gradients, two optimizer moments and two buffers of an actor; activations come on top."""
    weights = parameters * (4 if precision == "fp32" else 2)
    return {"client": weights + trainable * 16 + 2 * payload, "server": trainable * 8 + 3 * payload}
