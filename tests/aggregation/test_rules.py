"""The rules against their papers' formulas, and SCAFFOLD against the optimum that FedAvg misses."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fedray.aggregation.rules import rule
from fedray.scenario.aggregation import Aggregation, FedAvg
from fedray.transport.buffer import Layout

SIZE = 6
SECTIONS = TypeAdapter(Aggregation)
ADAPTERS = ("ffa_lora", "hetlora", "fedex_lora", "flora")
WHOLE = (
    "ifca",
    "krum",
    "multi_krum",
    "bulyan",
    "geometric_median",
    "norm_bound",
    "centered_clipping",
    "foolsgold",
    "fltrust",
)
REQUIRED = {
    "fedprox": {"mu": 0.1},
    "trimmed_mean": {"trim": 1},
    "krum": {"attackers": 1},
    "multi_krum": {"attackers": 1},
    "bulyan": {"attackers": 1},
    "centered_clipping": {"tau": 1.0},
    "fltrust": {"root_samples": 100},
}
KINDS = [
    section.model_fields["kind"].annotation.__args__[0] for section in get_args(get_args(Aggregation)[0])
]


def section(kind, **options):
    return SECTIONS.validate_python({"kind": kind, **REQUIRED.get(kind, {}), **options})


def flat(size=SIZE, trained=None):
    return Layout(("weights",), ((size,),), "fp32", size if trained is None else trained)


def lora():
    return Layout(("unet.x.to_q.lora_A.weight", "unet.x.to_q.lora_B.weight"), ((2, 3), (4, 2)), "fp32", 14)


def made(kind, size=SIZE, **options):
    return rule(section(kind, **options), flat(size))


def numbers(n=SIZE, seed=0, rounds=None):
    shape = (n,) if rounds is None else (rounds, n)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kept(state):
    """A state as it lies in a checkpoint between two rounds."""
    return {name: torch.from_numpy(np.array(value.numpy())) for name, value in state.items()}


def server(combined, start, means, share=1.0):
    """The global weights after each round, the state put down and taken up in between."""
    weights, state = start, {}
    for mean in means:
        weights, state = combined.step(weights, mean, kept(state), share, 0)
        yield weights


# --- all of them


def test_every_kind_a_scenario_may_name_has_a_rule():
    for kind in KINDS:
        asked = section(kind)
        assert rule(asked, lora()).section is asked
    assert type(rule(FedAvg(), flat())).__name__ == "FedAvg"


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_down_up_and_into_the_sum_has_the_sizes_the_rule_names(kind):
    layout = lora()
    combined = rule(section(kind), layout)
    received, sent = numbers(combined.received), numbers(combined.sent, 1)
    contribution = combined.contribution(received, sent)
    assert contribution.shape == (combined.summed,)
    combined.on_client_start(received[:14], received[14:], {})
    beside, _ = combined.on_client_end(received[:14], sent[:14], 3, 0.1, {})
    assert layout.numel + (0 if beside is None else len(beside)) == combined.sent
    rows = (2, -1) if kind == "scaffold" else (-1,)
    new, _ = combined.step(received.view(rows), contribution.view(rows), {}, 1.0, 0)
    assert new.numel() == combined.received
    assert new.dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_a_servers_step_leaves_what_it_was_given_as_it_was(kind):
    combined = rule(section(kind), lora())
    rows = (2, -1) if kind == "scaffold" else (-1,)
    old, mean = numbers(combined.received).view(rows), numbers(combined.summed, 1).view(rows)
    _, state = combined.step(old, mean, {}, 0.5, 3)
    before = [t.clone() for t in (old, mean, *state.values())]
    first = combined.step(old, mean, state, 0.5, 3)
    assert all(torch.equal(a, b) for a, b in zip((old, mean, *state.values()), before, strict=True))
    again = combined.step(old, mean, state, 0.5, 3)
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(first[1][name], again[1][name]) for name in first[1])


@given(cut=st.integers(1, SIZE - 1), seed=st.integers(0, 1000))
@settings(max_examples=20)
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ADAPTERS + WHOLE])
def test_a_rule_that_goes_number_by_number_gives_the_same_in_pieces(kind, cut, seed):
    combined = made(kind)
    assert combined.element_wise
    rows = combined.received // SIZE
    old, means = (
        numbers(rows * SIZE, seed).view(rows, SIZE),
        numbers(rows * SIZE, seed + 1, rounds=3).view(3, rows, SIZE),
    )
    whole = list(server(combined, old, means, 0.5))
    left = list(server(combined, old[:, :cut], means[..., :cut], 0.5))
    right = list(server(combined, old[:, cut:], means[..., cut:], 0.5))
    for all_of_it, *pieces in zip(whole, left, right, strict=True):
        torch.testing.assert_close(all_of_it, torch.cat(pieces, 1), rtol=1e-14, atol=0)


# --- FedAvg and FedProx


@given(seed=st.integers(0, 1000), share=st.floats(0.01, 1))
def test_fedavg_adds_the_mean_whatever_the_share_of_clients(seed, share):
    old, mean = numbers(seed=seed), numbers(seed=seed + 1)
    new, state = made("fedavg").step(old, mean, {}, share, seed)
    assert torch.equal(new, old + mean)
    assert state == {}


def test_fedavg_changes_no_gradient_and_sends_its_update_alone():
    combined, sent = made("fedavg"), numbers()
    assert combined.on_client_start(numbers(), torch.empty(0), {}) is None
    assert combined.on_client_end(numbers(), sent, 3, 0.1, {}) == (None, {})
    assert torch.equal(combined.contribution(numbers(), sent), sent)


@given(mu=st.floats(0, 10), seed=st.integers(0, 1000))
def test_fedprox_adds_mu_times_the_way_from_the_global_model_to_the_gradient(mu, seed):
    start, weights, gradient = (numbers(seed=seed + i) for i in range(3))
    adjust = made("fedprox", mu=mu).on_client_start(start, torch.empty(0), {})
    changed = gradient.clone()
    adjust(changed, weights)
    torch.testing.assert_close(changed, gradient + mu * (weights - start), rtol=1e-12, atol=1e-12)
    at_start = gradient.clone()
    adjust(at_start, start.clone())
    assert torch.equal(at_start, gradient)


@pytest.mark.parametrize("mu", [0.0, 0.5, 4.0])
def test_a_fedprox_client_ends_where_its_loss_and_the_pull_to_the_global_model_balance(mu):
    (curvature, target), *_ = clients(1)
    start = numbers(DIMENSIONS, 9)
    adjust = rule(section("fedprox", mu=mu), flat(DIMENSIONS)).on_client_start(start, torch.empty(0), {})
    weights = start.clone()
    for _ in range(1000):
        gradient = curvature @ (weights - target)
        adjust(gradient, weights)
        weights -= 0.1 * gradient
    balance = torch.linalg.solve(
        curvature + mu * torch.eye(DIMENSIONS, dtype=torch.float64), curvature @ target + mu * start
    )
    torch.testing.assert_close(weights, balance, rtol=0, atol=1e-9)


# --- SCAFFOLD, on f_i(x) = 1/2 (x - b_i)^T A_i (x - b_i)

DIMENSIONS, RATE = 4, 0.1


def clients(n, seed=0):
    """(A_i, b_i) of n clients, the eigenvalues of A_i between 0.3 and 4."""
    found = []
    for i in range(n):
        rotation, _ = torch.linalg.qr(numbers(DIMENSIONS**2, 100 * seed + i).view(DIMENSIONS, DIMENSIONS))
        values = torch.linspace(0.3, 4.0, DIMENSIONS, dtype=torch.float64).roll(i)
        found.append(
            (rotation @ torch.diag(values) @ rotation.T, 3 * numbers(DIMENSIONS, 100 * seed + 50 + i))
        )
    return found


def optimum(population, weights=None):
    weights = weights or [1] * len(population)
    curvature = sum(n * a for n, (a, _) in zip(weights, population, strict=True))
    return torch.linalg.solve(
        curvature, sum(n * a @ b for n, (a, b) in zip(weights, population, strict=True))
    )


def federation(kind, population, rounds, steps, weights=None, a_round=None, **options):
    """After each round: the global model, what goes down beside it, and every client's state."""
    combined = rule(section(kind, **options), flat(DIMENSIONS))
    weights, rows = weights or [1] * len(population), combined.received // DIMENSIONS
    received, state = torch.zeros(combined.received, dtype=torch.float64), {}
    states = [{} for _ in population]
    draws = np.random.default_rng(0)
    for _ in range(rounds):
        total, weight = torch.zeros(combined.summed, dtype=torch.float64), 0
        chosen = draws.choice(len(population), a_round or len(population), replace=False)
        for i in chosen:
            curvature, target = population[i]
            start = received[:DIMENSIONS].clone()
            adjust = combined.on_client_start(start, received[DIMENSIONS:], states[i])
            y = start.clone()
            for _ in range(steps):
                gradient = curvature @ (y - target)
                if adjust is not None:
                    adjust(gradient, y)
                y -= RATE * gradient
            beside, states[i] = combined.on_client_end(start, y, steps, RATE, states[i])
            sent = y - start if beside is None else torch.cat([y - start, beside])
            total += weights[i] * combined.contribution(received, sent)
            weight += weights[i]
        share = len(chosen) / len(population)
        stepped, state = combined.step(
            received.view(rows, -1), (total / weight).view(rows, -1), state, share, 0
        )
        received = stepped.flatten()
        yield received[:DIMENSIONS], received[DIMENSIONS:], [dict(s) for s in states]


def after(*arguments, **options):
    *_, last = federation(*arguments, **options)
    return last


@pytest.mark.parametrize("steps", [2, 10])
def test_scaffold_finds_the_optimum_that_fedavg_with_the_same_steps_misses(steps):
    population = clients(5)
    best = optimum(population)
    averaged, _, _ = after("fedavg", population, 150, steps)
    found, control, states = after("scaffold", population, 150, steps)
    assert (averaged - best).norm() > 1e-2
    assert (found - best).norm() < 1e-4
    # There the gradients cancel: c is their mean, zero, and c_i is client i's own.
    assert control.norm() < 1e-4
    for (curvature, target), state in zip(population, states, strict=True):
        (kept_control,) = state.values()
        gradient = curvature @ (best - target)
        assert gradient.norm() > 0.1
        assert (kept_control - gradient).norm() < 1e-3


def test_fedavg_stays_where_the_clients_local_steps_cancel():
    """K steps of client i lead to b_i + (1 - eta A_i)^K (x - b_i); the fixed point of their mean is not the
    optimum."""
    population, steps = clients(5), 10
    moves = [
        torch.eye(DIMENSIONS, dtype=torch.float64)
        - torch.matrix_power(torch.eye(DIMENSIONS) - RATE * a, steps)
        for a, _ in population
    ]
    fixed = torch.linalg.solve(sum(moves), sum(m @ b for m, (_, b) in zip(moves, population, strict=True)))
    averaged, _, _ = after("fedavg", population, 150, steps)
    torch.testing.assert_close(averaged, fixed, rtol=0, atol=1e-9)


def test_scaffolds_first_round_is_fedavgs():
    population = clients(5)
    assert torch.equal(after("scaffold", population, 1, 7)[0], after("fedavg", population, 1, 7)[0])


def test_scaffold_weighted_by_samples_finds_the_weighted_optimum():
    population, weights = clients(4, seed=1), [1, 5, 2, 9]
    best = optimum(population, weights)
    assert (best - optimum(population)).norm() > 1e-2
    assert (after("scaffold", population, 150, 8, weights=weights)[0] - best).norm() < 1e-4


@pytest.mark.parametrize("a_round", [1, 2, 3])
def test_the_servers_control_is_the_mean_of_all_clients_though_few_take_part(a_round):
    """c moves by |S| / N of the participants' mean change: so it stays the mean of every c_i, a client's zero
    before its first turn."""
    population, zero = clients(5), torch.zeros(DIMENSIONS, dtype=torch.float64)
    moved = zero
    for _, control, states in federation("scaffold", population, 12, 4, a_round=a_round):
        mean = sum(state.get("control", zero) for state in states) / len(population)
        torch.testing.assert_close(control, mean, rtol=0, atol=1e-12)
        moved = control
    assert moved.norm() > 1e-2


def test_scaffold_finds_the_optimum_with_two_of_five_clients_a_round():
    population = clients(5)
    best = optimum(population)
    assert (
        after("scaffold", population, 300, 5, a_round=2, server_learning_rate=0.5)[0] - best
    ).norm() < 1e-4


@given(rate=st.floats(0.01, 2), share=st.floats(0.01, 1))
def test_scaffolds_server_rate_is_the_models_and_the_share_is_the_controls(rate, share):
    old, mean = numbers(2 * SIZE).view(2, SIZE), numbers(2 * SIZE, 1).view(2, SIZE)
    new, state = made("scaffold", server_learning_rate=rate).step(old, mean, {}, share, 0)
    torch.testing.assert_close(new[0], old[0] + rate * mean[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(new[1], old[1] + share * mean[1], rtol=1e-12, atol=1e-12)
    assert state == {}


@given(steps=st.integers(1, 50), rate=st.floats(1e-3, 1), seed=st.integers(0, 1000))
def test_scaffolds_new_control_is_that_of_option_two(steps, rate, seed):
    start, end, control, c = (numbers(seed=seed + i) for i in range(4))
    combined, state = made("scaffold"), {}
    combined.on_client_start(start, torch.zeros(SIZE, dtype=torch.float64), {})
    # a first turn along `control`
    _, state = combined.on_client_end(start, start - steps * rate * control, steps, rate, {})
    (name,) = state
    torch.testing.assert_close(state[name], control, rtol=1e-9, atol=1e-9)
    adjust = combined.on_client_start(start, c, state)
    gradient = torch.zeros(SIZE, dtype=torch.float64)
    adjust(gradient, start)
    torch.testing.assert_close(gradient, c - state[name], rtol=1e-9, atol=1e-9)
    sent, new = combined.on_client_end(start, end, steps, rate, state)
    expected = state[name] - c + (start - end) / (steps * rate)
    torch.testing.assert_close(new[name], expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sent, expected - state[name], rtol=1e-9, atol=1e-9)


def test_what_only_travels_has_no_control_under_scaffold():
    layout = Layout(("weights", "running"), ((4,), (2,)), "fp32", 4)
    combined = rule(section("scaffold"), layout)
    start = numbers(4)
    combined.on_client_start(start, numbers(6, 1), {})
    sent, state = combined.on_client_end(start, numbers(4, 2), 2, 0.1, {})
    assert sent.shape == (6,)
    assert sent[:4].all()
    assert not sent[4:].any()
    assert [len(value) for value in state.values()] == [4]


# --- optimizers at the server


@given(beta=st.floats(0, 0.99), eta=st.floats(0.01, 2), seed=st.integers(0, 1000))
@settings(max_examples=30)
def test_fedavgm_is_momentum_on_the_mean_update(beta, eta, seed):
    start, means = numbers(seed=seed), numbers(seed=seed + 1, rounds=6)
    w, v = start.clone(), torch.zeros(SIZE, dtype=torch.float64)
    for got, mean in zip(
        server(made("fedavgm", momentum=beta, server_learning_rate=eta), start, means), means, strict=True
    ):
        v = beta * v + mean
        w = w + eta * v
        torch.testing.assert_close(got, w, rtol=1e-11, atol=1e-11)


def test_fedavgm_without_momentum_is_fedavg():
    start, means = numbers(), numbers(seed=1, rounds=4)
    plain = server(made("fedavgm", momentum=0.0, server_learning_rate=1.0), start, means)
    for got, expected in zip(plain, server(made("fedavg"), start, means), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-14, atol=1e-14)


@given(
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0, 0.999),
    tau=st.floats(1e-8, 0.1),
    eta=st.floats(1e-3, 1),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30)
def test_fedadam_is_torchs_adam_on_the_mean_update_with_its_sign_turned(beta1, beta2, tau, eta, seed):
    start, means = numbers(seed=seed), numbers(seed=seed + 1, rounds=6)
    weights = torch.nn.Parameter(start.clone())
    # one that lives through all rounds
    adam = torch.optim.Adam([weights], lr=eta, betas=(beta1, beta2), eps=tau)
    combined = made("fedadam", beta1=beta1, beta2=beta2, tau=tau, server_learning_rate=eta)
    for got, mean in zip(server(combined, start, means), means, strict=True):
        weights.grad = -mean
        adam.step()
        torch.testing.assert_close(got, weights.detach(), rtol=1e-11, atol=1e-11)


def test_fedadams_first_step_is_one_rate_long_towards_the_update():
    """Bias correction makes m / sqrt(v) the update's sign."""
    mean = torch.tensor([5.0, -0.2, 1e-1, -30.0, 2.0, 0.0], dtype=torch.float64)
    (new,) = server(
        made("fedadam", server_learning_rate=0.01, tau=1e-9), torch.zeros(SIZE, dtype=torch.float64), [mean]
    )
    torch.testing.assert_close(new, 0.01 * mean.sign(), rtol=1e-7, atol=0)


@given(
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0, 0.999),
    tau=st.floats(1e-4, 1),
    eta=st.floats(1e-3, 1),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30)
def test_fedyogi_is_the_papers_formula(beta1, beta2, tau, eta, seed):
    """Reddi et al. 2021, Algorithm 2, number by number, with v_0 = tau^2 and no bias correction."""
    start, means = numbers(seed=seed), numbers(seed=seed + 1, rounds=4)
    combined = made("fedyogi", beta1=beta1, beta2=beta2, tau=tau, server_learning_rate=eta)
    x, m, v = start.tolist(), [0.0] * SIZE, [tau * tau] * SIZE
    for got, mean in zip(server(combined, start, means), means.tolist(), strict=True):
        for j, delta in enumerate(mean):
            m[j] = beta1 * m[j] + (1 - beta1) * delta
            v[j] -= (1 - beta2) * delta**2 * ((v[j] > delta**2) - (v[j] < delta**2))
            x[j] += eta * m[j] / (v[j] ** 0.5 + tau)
        torch.testing.assert_close(got, torch.tensor(x, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_fedyogi_forgets_a_large_update_more_slowly_than_adam():
    """After one update of 1, updates of 0.01: Adam's v would shrink by a hundredth a round, Yogi's by a
    hundredth of 0.01^2."""
    combined = made("fedyogi", size=1, beta1=0.0, beta2=0.99, tau=1e-3, server_learning_rate=1.0)
    means = torch.tensor([[1.0], [0.01], [0.01], [0.01]], dtype=torch.float64)
    *_, before, last = (float(w) for w in server(combined, torch.zeros(1, dtype=torch.float64), means))
    v = 1e-6 + 0.01 - 3 * 0.01 * 0.01**2
    assert last - before == pytest.approx(0.01 / (v**0.5 + 1e-3))
