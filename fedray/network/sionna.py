"""What Sionna knows of 3GPP's channels and links. Imported in the driver alone, and only where a scenario
asks for it: its import takes seconds, and both that and its seed would draw new numbers for torch, which is
kept out of it here."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from fedray.network.geometry import nearest, remembered
from fedray.scenario.cell import Cell

# devices whose shadowing is drawn together: a matrix of their correlations grows with their square
TOGETHER = 64


@contextmanager
def _torch_apart(seed: int) -> Iterator[Any]:
    import torch

    with torch.random.fork_rng(devices=[]):
        import sionna.phy

        sionna.phy.config.seed = seed % 2**31
        yield torch


@remembered
def large_scale(
    places: np.ndarray,
    model: str,
    frequency_hz: float,
    cell: Cell,
    seed: int,
    began: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Path loss with shadowing in dB, K-factor (0 without line of sight) and line of sight, of each place [n]
    (TR 38.901, 7.4 and 7.5 steps 1 to 4). The same seed draws the same luck, so what changes with time
    changes with places alone: who `began` as neighbours stays together."""
    groups = nearest(places if began is None else began, range(len(places)), -(-len(places) // TOGETHER))
    size = max(map(len, groups))
    # the last may be short
    members = np.array([group + [group[0]] * (size - len(group)) for group in groups])
    with _torch_apart(seed) as torch:
        from sionna.phy.channel.tr38901 import (
            InHScenario,
            LSPGenerator,
            PanelArray,
            RMaScenario,
            UMaScenario,
            UMiScenario,
        )

        array = PanelArray(
            num_rows_per_panel=1,
            num_cols_per_panel=1,
            polarization="single",
            polarization_type="V",
            antenna_pattern="omni",
            carrier_frequency=frequency_hz,
        )
        both = {
            "ut_array": array,
            "bs_array": array,
            "direction": "uplink",
            "precision": "double",
            "device": "cpu",
        }
        scenario: Any
        if model == "inh":
            scenario = InHScenario(frequency_hz, indoor_scenario="mixed", **both)
        elif model == "rma":
            scenario = RMaScenario(frequency_hz, **both)
        else:
            scenario = {"umi": UMiScenario, "uma": UMaScenario}[model](frequency_hz, o2i_model="low", **both)
        b, n = members.shape
        height = np.full((b, n, 1), cell.device_height_m)
        still = torch.zeros(b, n, 3, dtype=torch.float64)
        base = torch.tensor([[[0.0, 0.0, cell.server_height_m]]] * b, dtype=torch.float64)
        scenario.set_topology(
            ut_loc=torch.as_tensor(np.concatenate([places[members], height], 2)),
            bs_loc=base,
            ut_orientations=still,
            bs_orientations=torch.zeros_like(base),
            ut_velocities=still,
            in_state=torch.full((b, n), model == "inh"),
        )
        drawn = LSPGenerator(scenario)
        drawn.topology_updated_callback()
        lsp, path, sight = drawn(), scenario.basic_pathloss[:, 0], scenario.los[:, 0]  # nobody sits in a car
        shadowed, k = path - 10 * torch.log10(lsp.sf[:, 0]), torch.where(sight, lsp.k_factor[:, 0], 0.0)
    loss, factor, seen = (np.empty(len(places), t) for t in (float, float, bool))
    for out, values in ((loss, shadowed), (factor, k), (seen, sight)):
        # a group's first member is filled last, with its own draw
        out[members[:, ::-1]] = values.numpy()[:, ::-1]
    return loss, factor, seen


@cache
def link_adaptation(modulation: str) -> tuple[np.ndarray, np.ndarray]:
    """What NR carries at a signal-to-noise ratio in dB, block errors taken off: the scheme with at most 10%
    of them, of the tables of TS 38.214, 5.1.3.1. Below the first nothing is carried."""
    db = np.arange(-10, 35.1, 0.25)
    with _torch_apart(0) as torch:
        from sionna.phy.nr.utils import decode_mcs_index
        from sionna.sys import InnerLoopLinkAdaptation, PHYAbstraction

        phy, table = PHYAbstraction(device="cpu"), {"64qam": 1, "256qam": 2}[modulation]
        snr = torch.tensor(10 ** (db / 10), dtype=torch.float32)
        elements = torch.full(snr.shape, 12 * 14 * 50, dtype=torch.int32)  # of 50 resource blocks in a slot
        asked = {"sinr_eff": snr, "num_allocated_re": elements, "mcs_table_index": table, "mcs_category": 1}
        scheme = InnerLoopLinkAdaptation(phy, bler_target=0.1, device="cpu")(**asked)
        errors = phy(scheme, **asked)[3]
        bits, code_rate = decode_mcs_index(scheme, table_index=table, is_pusch=False)
        carried = torch.where(errors <= 0.1, bits * code_rate * (1 - errors), 0.0)
    return db, np.maximum.accumulate(carried.double().numpy())
