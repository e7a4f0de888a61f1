"""Attacks by themselves: what they make of samples and updates."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fedray.adversary.attackers import attacks
from fedray.adversary.collusion import largest_z
from fedray.adversary.poisoned import Poisoned
from fedray.data.samples import Array
from fedray.transport.hooks import HookContext
from tests.helpers import garments, job_of

CONTEXT = HookContext(seed=0, round_number=1, client=3)


def attack(tmp_path, section, **adversary):
    changes = {"adversary": {"clients": [3], "attack": section} | adversary}
    (only,) = attacks(job_of(garments(tmp_path, changes))[1].scenario)
    return only


def grey(n=6, side=20):
    pixels = np.full((n, 1, side, side), 10, np.uint8)
    return Array(lambda: pixels, np.arange(n) % 3, ["boot", "bag", "shirt"])


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"kind": "sign_flip", "scale": 5.0}, [-5.0, 10.0]),
        ({"kind": "scale", "factor": 3.0}, [3.0, -6.0]),
        ({"kind": "model_replacement"}, [5.0, -10.0]),  # of five clients' updates one is the attacker's
        ({"kind": "model_replacement", "boost": 2.0}, [2.0, -4.0]),
        ({"kind": "free_rider"}, [0.0, 0.0]),
    ],
)
def test_an_attacker_sends_what_its_attack_says_of_its_update(section, expected, tmp_path):
    sent = attack(tmp_path, section).on_client(torch.tensor([1.0, -2.0]), CONTEXT)
    assert torch.equal(sent, torch.tensor(expected))


def test_noise_is_as_long_as_it_says_and_drawn_for_its_client_and_round_alone(tmp_path):
    noise = attack(tmp_path, {"kind": "noise", "std": 2.0, "replaces": True})
    update = torch.full((100_000,), 0.5)
    sent = noise.on_client(update, CONTEXT)
    assert float(sent.std()) == pytest.approx(1.0, rel=0.02)  # twice the update's root mean square
    assert torch.equal(sent, noise.on_client(update, CONTEXT))
    for other in (HookContext(0, 2, 3), HookContext(0, 1, 4), HookContext(1, 1, 3)):
        assert not torch.equal(sent, noise.on_client(update, other))


# privacy.md, Sec. 1, computed there by the authors' own formula
@pytest.mark.parametrize(("clients", "attackers", "z"), [(20, 4, 0.157), (10, 2, 0.0)])
def test_alie_shifts_by_the_deviations_of_its_authors_formula(clients, attackers, z):
    assert largest_z(clients, attackers) == pytest.approx(z, abs=5e-4)


@given(st.integers(2, 60), st.integers(1, 30))
def test_alie_shifts_by_no_negative_number_of_deviations(clients, attackers):
    assert largest_z(clients + attackers, attackers) >= 0


def test_colluders_send_what_the_honest_updates_make(tmp_path):
    honest = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    own = torch.zeros(3, 2)
    alie = attack(tmp_path, {"kind": "alie", "z": 1.5})
    # mean (2, 2), deviation (1, 2)
    assert torch.equal(alie.collude(honest, own, CONTEXT), torch.tensor([[0.5, -1.0]] * 3))
    ipm = attack(tmp_path, {"kind": "ipm", "epsilon": 0.25})
    assert torch.equal(ipm.collude(honest, own, CONTEXT), torch.tensor([[-0.5, -0.5]] * 3))


def test_labels_are_turned_round_or_as_they_are_named(tmp_path):
    flip = attack(tmp_path, {"kind": "label_flip"})
    assert flip.samples(3, grey(), np.arange(6)).labels.tolist() == [2, 1, 0, 2, 1, 0]
    named = attack(tmp_path, {"kind": "label_flip", "labels": {"boot": "bag"}})
    assert named.samples(3, grey(), np.arange(6)).labels.tolist() == [1, 1, 2, 1, 1, 2]


def test_a_dirty_backdoor_marks_some_of_the_attackers_own_images_and_calls_them_the_target(tmp_path):
    backdoor = attack(tmp_path, {"kind": "backdoor", "target": "bag", "share": 0.5, "size": 0.2})
    own = np.array([0, 2, 3, 5])
    samples = backdoor.samples(3, grey(), own)
    pixels = samples.pixels(np.arange(6), None)
    marked = np.flatnonzero(pixels.max((1, 2, 3)) == 255)
    assert len(marked) == 2
    assert set(marked) <= set(own)
    assert (samples.labels[marked] == 1).all()
    # a square of a fifth of 20 pixels, a pixel away from the corner
    assert (pixels[marked[0], 0, 15:19, 15:19] == 255).all()
    assert (pixels[marked[0]] == 255).sum() == 16
    assert np.array_equal(np.array(samples.image(int(marked[0])))[:, :, 0], pixels[marked[0], 0])
    others = np.setdiff1d(np.arange(6), marked)
    assert (pixels[others] == 10).all()
    assert (samples.labels[others] == grey().labels[others]).all()


def test_a_clean_backdoor_changes_no_label(tmp_path):
    backdoor = attack(tmp_path, {"kind": "backdoor", "target": "bag", "share": 1.0, "labels": "clean"})
    samples = backdoor.samples(3, grey(), np.arange(6))
    assert samples.labels.tolist() == grey().labels.tolist()
    marked = np.flatnonzero(samples.pixels(np.arange(6), None).max((1, 2, 3)) == 255)
    assert marked.tolist() == [1, 4]  # the bags
    with pytest.raises(ValueError, match="client 3 has no bag"):
        backdoor.samples(3, grey(), np.array([0, 2]))


def test_poisoned_samples_show_another_image_under_a_caption_of_the_attackers():
    pixels = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(8, 2).repeat(8, 3)
    plain = Array(lambda: pixels, np.zeros(3, int), ["bag"])
    poisoned = Poisoned(plain, captions={0: "a photo of a zorb bag"}, images={0: 2})
    assert list(poisoned.captions) == ["a photo of a zorb bag", "a photo of a bag", "a photo of a bag"]
    assert poisoned.pixels(np.array([0, 1]), None)[:, 0, 0, 0].tolist() == [2, 1]
    assert isinstance(poisoned.image(0), Image.Image)
    assert poisoned.image(0).getpixel((0, 0)) == (2, 2, 2)
