"""Several cells: which one serves a client, and what it receives from the others. Gains are linear in
[..., client, cell] unless they are said to be in decibel."""

from collections.abc import Callable

import numpy as np


def handovers(
    gains_db: np.ndarray, time_s: np.ndarray, hysteresis_db: float = 0.0, time_to_trigger_s: float = 0.0
) -> np.ndarray:
    """The cell that serves each client at each time [time, client]: first the strongest; then another once it
    has been stronger by more than the hysteresis for the time to trigger, without a break (event A3 of 3GPP
    TS 38.331, 5.5.4.4, at the times given); of several such cells the strongest.

    Args:
        gains_db: [time, client, cell].
        time_s: rising [time].
        hysteresis_db: by how much a cell has to be stronger.
        time_to_trigger_s: for how long.
    """
    each = np.arange(gains_db.shape[1])
    serving = np.empty(gains_db.shape[:2], np.int64)
    serving[0] = gains_db[0].argmax(1)
    since_s = np.full(gains_db.shape[1:], np.inf)  # when each cell became stronger
    for t in range(1, len(time_s)):
        now = serving[t - 1]
        stronger = gains_db[t] > gains_db[t, each, now][:, None] + hysteresis_db
        since_s = np.where(stronger, np.minimum(since_s, time_s[t]), np.inf)
        triggered = stronger & (time_s[t] - since_s >= time_to_trigger_s)
        moves = triggered.any(1)
        best = np.where(triggered, gains_db[t], -np.inf).argmax(1)
        serving[t] = np.where(moves, best, now)
        since_s[moves] = np.inf
    return serving


def from_others(direction: str, received_mw: np.ndarray, serving: np.ndarray) -> np.ndarray:
    """The power that comes from other cells [client], in mW, if they send all the time. Downlink: at each
    client, from the other base stations. Uplink: at each client's base station, from one device at a time in
    each other cell, as much as the mean over those that it serves; none from a cell that serves nobody.

    Args:
        direction: uplink or downlink.
        received_mw: what each base station receives of each client, or each client of each base station
            [client, cell].
        serving: the cell of each client [client].
    """
    each = np.arange(len(serving))
    if direction == "downlink":
        others = received_mw.copy()
        others[each, serving] = 0.0
        return others.sum(1)
    cells = received_mw.shape[1]
    heard = np.zeros(cells)  # at each base station
    for cell in range(cells):
        if len(members := np.flatnonzero(serving == cell)):
            mean = received_mw[members].mean(0)
            mean[cell] = 0.0
            heard += mean
    return heard[serving]


def by_cell(cells: np.ndarray, answer: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What `answer` gives for the places [k] of each cell's members, put together [n].

    Args:
        cells: of each [n].
        answer: a number for each of these places.
    """
    result = np.empty(len(cells))
    for cell in np.unique(cells):
        members = np.flatnonzero(cells == cell)
        result[members] = answer(members)
    return result
