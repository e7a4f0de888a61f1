"""What Sionna knows of 3GPP's channels and links. Imported in the driver alone, and only where a scenario
asks for it: its import takes seconds, and both that and its seed would draw new numbers for torch, which is
kept out of it here."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from fedray.network.geometry import cache_last_call, nearest_groups
from fedray.scenario.cell import Cell

# devices whose shadowing is drawn together: a matrix of their correlations grows with their square
GROUP_SIZE = 64


@contextmanager
def _torch_apart(seed: int) -> Iterator[Any]:
    import torch

    with torch.random.fork_rng(devices=[]):
        import sionna.phy

        sionna.phy.config.seed = seed % 2**31
        yield torch


@cache_last_call
def large_scale(
    places: np.ndarray,
    model: str,
    frequency_hz: float,
    cell: Cell,
    seed: int,
    initial_positions: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Path loss with shadowing in dB, K-factor (0 without line of sight) and line of sight, of each place [n]
    (TR 38.901, 7.4 and 7.5 steps 1 to 4). The same seed draws the same numbers, so what changes with time
    changes with places alone: neighbours of the start are drawn together for good.

    Args:
        places: of the devices, in metres from the base station [n, 2].
        model: umi, uma, rma or inh.
        frequency_hz: of the carrier.
        cell: heights.
        seed: of the draws.
        initial_positions: where the devices were first [n, 2]; none: at `places`.
    """
    first = places if initial_positions is None else initial_positions
    groups = nearest_groups(first, range(len(places)), -(-len(places) // GROUP_SIZE))
    size = max(map(len, groups))
    # the last may be short
    members = np.array([group + [group[0]] * (size - len(group)) for group in groups])
    with _torch_apart(seed) as torch:
        from sionna.phy.channel.tr38901 import LSPGenerator

        scenario = _scenario(model, frequency_hz)
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
        generator = LSPGenerator(scenario)
        generator.topology_updated_callback()
        lsp = generator()
        # nobody sits in a car
        path_loss = scenario.basic_pathloss[:, 0]
        los = scenario.los[:, 0]
        shadowed = path_loss - 10 * torch.log10(lsp.sf[:, 0])
        k = torch.where(los, lsp.k_factor[:, 0], 0.0)
    loss, factor, in_sight = (np.empty(len(places), t) for t in (float, float, bool))
    for out, values in ((loss, shadowed), (factor, k), (in_sight, los)):
        # a group's first member is filled last, with its own draw
        out[members[:, ::-1]] = values.numpy()[:, ::-1]
    return loss, factor, in_sight


def _scenario(model: str, frequency_hz: float) -> Any:
    """Sionna's own of a model of TR 38.901, with one omnidirectional antenna at both ends."""
    from sionna.phy.channel.tr38901 import InHScenario, PanelArray, RMaScenario, UMaScenario, UMiScenario

    array = PanelArray(
        num_rows_per_panel=1,
        num_cols_per_panel=1,
        polarization="single",
        polarization_type="V",
        antenna_pattern="omni",
        carrier_frequency=frequency_hz,
    )
    common = {
        "ut_array": array,
        "bs_array": array,
        "direction": "uplink",
        "precision": "double",
        "device": "cpu",
    }
    if model == "inh":
        return InHScenario(frequency_hz, indoor_scenario="mixed", **common)
    if model == "rma":
        return RMaScenario(frequency_hz, **common)
    kind = {"umi": UMiScenario, "uma": UMaScenario}[model]
    return kind(frequency_hz, o2i_model="low", **common)


@cache
def link_adaptation(modulation: str) -> tuple[np.ndarray, np.ndarray]:
    """What NR carries at a signal-to-noise ratio in dB, block errors taken off: the scheme with at most 10%
    of them, of the tables of TS 38.214, 5.1.3.1. Below the first nothing is carried."""
    db = np.arange(-10, 35.1, 0.25)
    with _torch_apart(0) as torch:
        from sionna.phy.nr.utils import decode_mcs_index
        from sionna.sys import InnerLoopLinkAdaptation, PHYAbstraction

        phy = PHYAbstraction(device="cpu")
        table = {"64qam": 1, "256qam": 2}[modulation]
        snr = torch.tensor(10 ** (db / 10), dtype=torch.float32)
        elements = torch.full(snr.shape, 12 * 14 * 50, dtype=torch.int32)  # of 50 resource blocks in a slot
        request = {"sinr_eff": snr, "num_allocated_re": elements, "mcs_table_index": table, "mcs_category": 1}
        scheme = InnerLoopLinkAdaptation(phy, bler_target=0.1, device="cpu")(**request)
        errors = phy(scheme, **request)[3]
        bits, code_rate = decode_mcs_index(scheme, table_index=table, is_pusch=False)
        efficiency = torch.where(errors <= 0.1, bits * code_rate * (1 - errors), 0.0)
    return db, np.maximum.accumulate(efficiency.double().numpy())
