"""Sionna's channels beside their closed forms, and what it must leave alone."""

import numpy as np
import pytest
import torch

from fedray.network import sionna
from fedray.scenario.cell import Cell, Disc

HEIGHT = {"umi": 10.0, "uma": 25.0, "rma": 35.0, "inh": 3.0}
LOSSES = {  # TR 38.901, Table 7.4.1-1 below the breakpoint; log10 of d3D in metres and f in GHz
    "umi": (lambda d, f: 32.4 + 21 * d + 20 * f, lambda d, f: 35.3 * d + 22.4 + 21.3 * f),
    "uma": (lambda d, f: 28 + 22 * d + 20 * f, lambda d, f: 13.54 + 39.08 * d + 20 * f),
    "inh": (lambda d, f: 32.4 + 17.3 * d + 20 * f, lambda d, f: 17.3 + 38.3 * d + 24.9 * f),
}


@pytest.mark.parametrize("model", LOSSES)
def test_sionna_s_path_loss_is_the_table_s_to_a_thousandth_of_a_decibel(model):
    places = np.stack([np.linspace(20, 95, 300), np.zeros(300)], 1)
    cell = Cell(placement=Disc(kind="disc", radius_m=100.0), server_height_m=HEIGHT[model])
    loss, _, sight = without_shadowing(model, cell, places)
    d = np.log10(np.hypot(places[:, 0], HEIGHT[model] - 1.5))
    clear, blocked = (one(d, np.log10(3.5)) for one in LOSSES[model])
    assert 5 < sight.sum() < 295
    assert loss == pytest.approx(np.where(sight, clear, np.maximum(clear, blocked)), abs=1e-3)


def drawn(model, cell, places, seed=0):
    """Of places that nobody has asked for before."""
    return sionna.large_scale(places.copy(), model, 3.5e9, cell, seed)


def without_shadowing(model, cell, places):
    """The same draws, but for the shadowing."""
    from sionna.phy.channel.tr38901 import LSPGenerator

    call = LSPGenerator.__call__

    def flat(self):
        lsp = call(self)
        lsp.sf = torch.ones_like(lsp.sf)
        return lsp

    LSPGenerator.__call__ = flat
    try:
        return drawn(model, cell, places)
    finally:
        LSPGenerator.__call__ = call


AT_100_M = [("umi", 85.31, 104.64, 0.231), ("uma", 83.14, 103.04, 0.348), ("rma", 84.20, 92.67, 0.914)]


@pytest.mark.parametrize(("model", "clear", "blocked", "chance"), AT_100_M)
def test_at_a_hundred_metres_and_3_5_ghz(model, clear, blocked, chance):
    places = np.tile([[100.0, 0.0]], (4000, 1))
    cell = Cell(placement=Disc(kind="disc", radius_m=200.0), server_height_m=HEIGHT[model])
    loss, k, sight = without_shadowing(model, cell, places)
    assert sight.mean() == pytest.approx(chance, abs=0.025)
    assert loss[sight] == pytest.approx(np.full(sight.sum(), clear), abs=0.06)
    assert loss[~sight] == pytest.approx(np.full((~sight).sum(), blocked), abs=0.06)
    assert (k[~sight] == 0).all()
    assert (k[sight] > 0).all()


def test_shadowing_has_the_table_s_spread_and_the_same_seed_the_same_luck():
    cell = Cell(placement=Disc(kind="disc", radius_m=5000.0))
    places = np.random.default_rng(0).uniform(-3000, 3000, (2000, 2))
    flat, _, sight = without_shadowing("umi", cell, places)
    found, _, again = drawn("umi", cell, places)
    assert np.array_equal(sight, again)
    assert (found - flat)[~sight].std() == pytest.approx(7.82, rel=0.1)
    assert np.array_equal(found, drawn("umi", cell, places)[0])
    assert not np.array_equal(found, drawn("umi", cell, places, 1)[0])


def test_link_adaptation_carries_more_of_a_better_signal_and_nothing_below_the_first_scheme():
    db, carried = sionna.link_adaptation("64qam")
    assert (carried[db < -3] == 0).all()
    assert (carried[db > 0] > 0).all()
    assert (np.diff(carried) >= 0).all()
    assert 5 < carried[-1] <= 5.55
    assert sionna.link_adaptation("256qam")[1][-1] > 7


def test_torch_s_own_draws_are_those_without_sionna():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    drawn("umi", Cell(placement=Disc(kind="disc", radius_m=100.0)), np.array([[50.0, 0.0]]), 3)
    assert torch.equal(torch.rand(4), expected)


def test_a_step_aside_changes_little_however_many_walk():
    cell = Cell(placement=Disc(kind="disc", radius_m=200.0))
    began = np.random.default_rng(0).uniform(-200, 200, (300, 2))
    moved = began + np.random.default_rng(1).normal(size=began.shape)
    (before, _, saw), (after, _, sees) = (
        sionna.large_scale(p, "umi", 3.5e9, cell, 1, began) for p in (began, moved)
    )
    assert (saw != sees).sum() <= 5
    assert np.median(np.abs(before - after)) < 0.5
