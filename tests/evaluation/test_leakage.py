import torch

from fedray.evaluation.leakage import distance_correlation, reconstruct


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_what_is_only_turned_and_scaled_correlates_wholly_and_what_is_constant_not_at_all():
    x = noise(60, 5)
    turn = torch.linalg.qr(noise(5, 5, seed=1))[0]
    assert abs(float(distance_correlation(x, 3 * x @ turn + 7)) - 1) < 1e-4
    assert float(distance_correlation(x, torch.ones(60, 2))) < 1e-3


def test_it_is_that_of_the_definition():
    """Szekely et al. 2007, by double centring in float64."""
    x, y = noise(30, 4).double(), noise(30, 3, seed=2).double()
    y[:, 0] += x[:, 0]
    a, b = (torch.cdist(z, z) for z in (x, y))
    a, b = (d - d.mean(0) - d.mean(1)[:, None] + d.mean() for d in (a, b))
    expected = ((a * b).mean() / ((a * a).mean() * (b * b).mean()).sqrt()).sqrt()
    assert abs(float(distance_correlation(x.float(), y.float())) - float(expected)) < 1e-4


def test_an_attacker_inverts_a_linear_map_and_cannot_invert_noise():
    pictures = noise(200, 1, 6, 6)
    through = noise(36, 48, seed=3) / 6
    told, _ = reconstruct(pictures.flatten(1) @ through, pictures, 150, 0, 500, 0)
    nothing, made = reconstruct(noise(200, 48, seed=4), pictures, 150, 0, 100, 0)
    assert told < 0.5
    assert nothing > 0.95
    assert made.shape == (50, 1, 6, 6)


def test_an_attacker_reads_tokens_off_their_embeddings():
    tokens = torch.randint(10, (100, 8), generator=torch.Generator().manual_seed(0))
    wrong, _ = reconstruct(noise(10, 16)[tokens], tokens, 50, 10, 400, 0)
    assert wrong < 0.05
