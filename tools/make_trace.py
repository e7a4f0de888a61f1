"""Draws the shipped mahimahi trace: twenty seconds of a walk through a cell, 1 to 20 Mbit/s, with a second
without anything.

uv run python tools/make_trace.py > fedray/shipped/synthetic-walk.trace
"""

from __future__ import annotations

import numpy as np

LENGTH_MS, STATE_MS, PACKET_BITS = 20_000, 500, 12_000

rng = np.random.default_rng(2026)
mbps = np.empty(LENGTH_MS)
level = 12.0
for begin in range(0, LENGTH_MS, STATE_MS):
    level = float(np.clip(level * np.exp(rng.normal(0, 0.35)), 1.0, 20.0))
    mbps[begin : begin + STATE_MS] = level
mbps[13_000:14_000] = 0.0
packets = np.cumsum(mbps * 1e6 / 1000 / PACKET_BITS)
stamps = np.searchsorted(packets, np.arange(1, int(packets[-1]) + 1)) + 1
print("\n".join(map(str, [*stamps, LENGTH_MS])))
