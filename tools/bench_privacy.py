"""What secure aggregation costs on this machine: python tools/bench_privacy.py

100 clients of the CNN of 225,034 parameters, 10 of which vanish after they have shared keys: SecAgg, and SecAgg+ with 20
neighbours. Seconds of one client's masks and of the round's end (all clients' shares, and the server's unmasking).
"""

import time

import numpy as np

from fedray.secure.graph import neighbours
from fedray.secure.round import SecureRound
from fedray.secure.sizes import message_bytes

CLIENTS = 100
VANISHED = 10
NUMBERS = 225_034

for degree in (None, 20):
    near = neighbours(range(CLIENTS), degree, 0, 1)
    others = len(near[0])
    senders = range(VANISHED, CLIENTS)
    secure = SecureRound(0, 1, 2 * (others + 1) // 3 + 1, 64, None, 16, near, tuple(senders))
    total = np.zeros(NUMBERS, np.uint64)
    start = time.perf_counter()
    for client in senders:
        secure.mask(total, client)
    masked_s = (time.perf_counter() - start) / len(senders)
    start = time.perf_counter()
    secure.unmask(total, senders)
    unmasked_s = time.perf_counter() - start
    assert not total.any()
    small = sum(
        message_bytes(m, others)
        for m in ("keys", "peer_keys", "shares", "peer_shares", "survivors", "unmask")
    )
    print(
        f"{others} neighbours: {masked_s:.3f} s of masks a client, {unmasked_s:.2f} s to unmask,"
        f" {8 * NUMBERS} bytes of masked update and {small} of keys and shares a client",
        flush=True,
    )
