"""Rules for adapters: which of them keep the mean of the products, and how far FedAvg on A and B is from
it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.aggregation.rules import rule
from fedray.scenario.aggregation import FedAvg, FedExLora, FfaLora, Flora, HetLora
from fedray.transport.buffer import Layout
from fedray.tuning.lora import truncation

RANK, CLIENTS = 8, 5
LAYERS = {  # outputs, inputs, kernel
    "text_encoder.text_model.layers.0.q_proj": (12, 20, ()),
    "unet.down.to_q": (24, 16, ()),
    "unet.proj_in": (10, 14, (1, 1)),
}
SECTIONS = {
    "fedavg": FedAvg(),
    "fedex_lora": FedExLora(kind="fedex_lora"),
    "flora": Flora(kind="flora"),
    "ffa_lora": FfaLora(kind="ffa_lora"),
    "hetlora": HetLora(kind="hetlora"),
}
DRIFTS = [0.01, 0.1, 1.0]


def shapes(rank=RANK):
    found = {}
    for layer, (outputs, inputs, kernel) in LAYERS.items():
        found[f"{layer}.lora_A.weight"] = (rank, inputs, *kernel)
        found[f"{layer}.lora_B.weight"] = (outputs, rank, *kernel)
    return found


def layout_of(names=None, rank=RANK):
    sizes = shapes(rank)
    names = sorted(sizes) if names is None else names
    layout = Layout(tuple(names), tuple(sizes[n] for n in names), "fp32", 0)
    return Layout(layout.names, layout.shapes, "fp32", layout.numel)


def tensors(layout, flat):
    parts = flat[: layout.numel].split(list(layout.sizes))
    return {n: p.reshape(s) for n, p, s in zip(layout.names, parts, layout.shapes, strict=True)}


def products(layout, flat):
    """B A [outputs, inputs] of each layer, float64, by its name."""
    named = {n: t.double().flatten(1) for n, t in tensors(layout, flat).items()}
    return {layer: named[f"{layer}.lora_B.weight"] @ named[f"{layer}.lora_A.weight"] for layer in LAYERS}


def folded(layout, vector):
    """The folded change D [outputs, inputs] of each layer, float64, as they lie in the global vector's
    tail."""
    order = [n.removesuffix(".lora_A.weight") for n in layout.names if n.endswith(".lora_A.weight")]
    sizes = [LAYERS[layer][0] * LAYERS[layer][1] for layer in order]
    parts = vector[layout.numel :].double().split(sizes)
    return {layer: part.view(LAYERS[layer][:2]) for layer, part in zip(order, parts, strict=True)}


def initial(combined, layout, draws):
    """As peft begins: A drawn with deviation 1 / rank, B zero, and nothing folded yet."""
    vector = torch.zeros(combined.received)
    for name, part in tensors(layout, vector).items():
        if ".lora_A." in name:
            part.copy_(torch.randn(part.shape, generator=draws) / part.shape[0])
    return vector


def federated_round(combined, layout, vector, drift, weights, draws, seed=0):
    """The next global vector, fp32, and the mean model D + B_i A_i [outputs, inputs] of each layer,
    float64."""
    total, mean = torch.zeros(combined.summed, dtype=torch.float64), dict.fromkeys(LAYERS, 0.0)
    before = folded(layout, vector) if combined.received > layout.numel else dict.fromkeys(LAYERS, 0.0)
    for weight in weights:
        sent = drift * torch.randn(layout.numel, generator=draws)
        total += weight * combined.contribution(vector, sent).double()
        local = products(layout, vector[: layout.numel] + sent)
        mean = {
            layer: mean[layer] + weight * (before[layer] + local[layer]) / sum(weights) for layer in LAYERS
        }
    new, state = combined.step(vector.double(), total / sum(weights), {}, 1.0, seed)
    assert state == {}
    return new.float(), mean


def model(layout, vector):
    folds = folded(layout, vector)
    return {layer: folds[layer] + product for layer, product in products(layout, vector).items()}


def error(got, expected):
    """By how much of its length the change of all layers is missed."""
    missed = sum((got[layer] - expected[layer]).square().sum() for layer in LAYERS)
    return float((missed / sum(expected[layer].square().sum() for layer in LAYERS)).sqrt())


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("kind", ["fedex_lora", "flora"])
def test_the_global_model_is_the_mean_of_the_clients_round_after_round(kind, drift):
    layout, draws = layout_of(), torch.Generator().manual_seed(1)
    combined = rule(SECTIONS[kind], layout)
    vector = initial(combined, layout, draws)
    for number in range(4):
        vector, mean = federated_round(combined, layout, vector, drift, [1, 7, 3, 3, 20], draws, seed=number)
        assert error(model(layout, vector), mean) < 1e-5
    assert all(change.abs().max() > 1e-5 for change in folded(layout, vector).values())


@given(
    names=st.permutations(sorted(shapes())),
    weights=st.lists(st.integers(1, 500), min_size=1, max_size=6),
    seed=st.integers(0, 100),
)
@settings(max_examples=20)
@pytest.mark.parametrize("kind", ["fedex_lora", "flora"])
def test_it_is_for_any_order_of_tensors_and_any_weights(kind, names, weights, seed):
    layout, draws = layout_of(names, rank=3), torch.Generator().manual_seed(seed)
    combined = rule(SECTIONS[kind], layout)
    vector = initial(combined, layout, draws)
    for number in range(2):
        vector, mean = federated_round(combined, layout, vector, 0.3, weights, draws, seed=number)
        assert error(model(layout, vector), mean) < 1e-5


def test_fedex_lora_averages_a_and_b_as_fedavg_does():
    layout = layout_of()
    ends = []
    for kind in ("fedavg", "fedex_lora"):
        draws, combined = torch.Generator().manual_seed(2), rule(SECTIONS[kind], layout)
        vector = initial(combined, layout, draws)
        ends.append(federated_round(combined, layout, vector, 0.3, [1, 2, 3], draws)[0][: layout.numel])
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-6)


def test_fedex_lora_folds_nothing_where_one_client_trains_alone():
    """The mean of one product is the product of its means."""
    layout, draws = layout_of(), torch.Generator().manual_seed(3)
    combined = rule(SECTIONS["fedex_lora"], layout)
    vector, mean = federated_round(combined, layout, initial(combined, layout, draws), 0.3, [4], draws)
    assert vector[layout.numel :].abs().max() < 1e-5
    assert error(products(layout, vector), mean) < 1e-5


def test_flora_folds_the_mean_product_and_begins_again_with_b_zero_and_a_new_a():
    layout, draws = layout_of(), torch.Generator().manual_seed(4)
    combined = rule(SECTIONS["flora"], layout)
    old = initial(combined, layout, draws)
    new, mean = federated_round(combined, layout, old, 0.3, [1, 2, 3], draws)
    assert error(folded(layout, new), mean) < 1e-5
    before = tensors(layout, old)
    for name, tensor in tensors(layout, new).items():
        if ".lora_B." in name:
            assert not tensor.any()
        else:
            assert (tensor != before[name]).all()


def test_flora_draws_a_from_the_seed_as_peft_does():
    layout = layout_of()
    combined = rule(SECTIONS["flora"], layout)
    old, mean = (
        torch.zeros(combined.received, dtype=torch.float64),
        torch.zeros(combined.summed, dtype=torch.float64),
    )
    vectors = [combined.step(old, mean, {}, 1.0, seed)[0] for seed in (5, 5, 6)]
    assert torch.equal(vectors[0], vectors[1])
    named = [tensors(layout, vector) for vector in vectors]
    drawn = [name for name in layout.names if ".lora_A." in name]
    assert all((named[0][name] != named[2][name]).all() for name in drawn)
    numbers = torch.cat([draw[name].flatten() for draw in (named[0], named[2]) for name in drawn])  # 800
    assert float(numbers.std()) == pytest.approx(1 / RANK, rel=0.1)
    assert abs(float(numbers.mean())) < 0.1 / RANK
    assert len(numbers.unique()) == len(numbers)


def test_fedavg_on_a_and_b_misses_the_mean_model_the_more_the_further_clients_drift():
    layout, missed = layout_of(), []
    for drift in DRIFTS:
        draws, combined = torch.Generator().manual_seed(5), rule(SECTIONS["fedavg"], layout)
        vector, mean = federated_round(
            combined, layout, initial(combined, layout, draws), drift, [1] * CLIENTS, draws
        )
        missed.append(error(products(layout, vector), mean))
    assert missed[0] < missed[1] < missed[2]
    assert missed[1] > 1e-3
    # the covariance of A and B is quadratic in the drift, their product linear
    assert 5 < missed[1] / missed[0] < 15


@pytest.mark.parametrize("drift", DRIFTS)
def test_ffa_loras_mean_of_b_alone_is_exact(drift):
    """Only B travels; A is the same everywhere: mean(B_i) A = mean(B_i A)."""
    layout = layout_of([name for name in sorted(shapes()) if ".lora_B." in name])
    draws, combined = torch.Generator().manual_seed(6), rule(SECTIONS["ffa_lora"], layout)
    frozen = {
        n: torch.randn(s, generator=draws, dtype=torch.float64).flatten(1) / RANK
        for n, s in shapes().items()
        if ".lora_A." in n
    }

    def model(flat):
        return {
            n.split(".lora_")[0]: t.flatten(1) @ frozen[n.replace("_B.", "_A.")]
            for n, t in tensors(layout, flat).items()
        }

    old = drift * torch.randn(layout.numel, generator=draws, dtype=torch.float64)
    sent = drift * torch.randn((CLIENTS, layout.numel), generator=draws, dtype=torch.float64)
    new, _ = combined.step(old, sum(combined.contribution(old, s) for s in sent) / CLIENTS, {}, 1.0, 0)
    ends = [model(old + s) for s in sent]
    assert error(model(new), {layer: sum(end[layer] for end in ends) / CLIENTS for layer in LAYERS}) < 1e-12


@pytest.mark.parametrize("kind", ["fedex_lora", "flora"])
def test_the_folded_change_goes_down_with_the_adapter_and_the_adapter_alone_goes_up(kind):
    layout = layout_of()
    combined = rule(SECTIONS[kind], layout)
    assert combined.received == layout.numel + 12 * 20 + 24 * 16 + 10 * 14
    assert combined.sent == layout.numel
    assert combined.updates_base_weights
    assert not combined.element_wise


def mixed_ends(layout, vector, ranks, drift, draws):
    """What clients of these ranks have after training from a global vector: zero where their rank has
    nothing."""
    held = [truncation(layout, rank) for rank in ranks]
    return [
        (vector[: layout.numel] + drift * torch.randn(layout.numel, generator=draws)) * mask for mask in held
    ]


def test_a_low_rank_holds_the_first_rows_of_a_and_columns_of_b():
    layout = layout_of()
    for name, part in tensors(layout, truncation(layout, 3)).items():
        rows = part if ".lora_A." in name else part.transpose(0, 1)
        assert rows[:3].all()
        assert not rows[3:].any()
    assert truncation(layout, RANK).all()
    assert int(truncation(layout, 3).sum()) * RANK == 3 * layout.numel


def test_hetlora_weighs_padded_adapters_by_the_length_of_what_they_add():
    layout, draws = layout_of(), torch.Generator().manual_seed(7)
    combined = rule(SECTIONS["hetlora"], layout)
    old = initial(combined, layout, draws) + 0.1 * torch.randn(layout.numel, generator=draws)
    ends = mixed_ends(layout, old, [2, 4, 8, 8], 0.3, draws)
    mean = sum(combined.contribution(old, end - old).double() for end in ends) / len(ends)
    new, _ = combined.step(old.double(), mean, {}, 1.0, 0)
    lengths = [torch.cat([p.flatten() for p in products(layout, end).values()]).norm() for end in ends]
    expected = sum(length * end.double() for length, end in zip(lengths, ends, strict=True)) / sum(lengths)
    torch.testing.assert_close(new, expected, rtol=0, atol=1e-6)
    plain = sum(end.double() for end in ends) / len(ends)
    high = ~truncation(layout, 4)
    assert new[high].norm() > plain[high].norm()  # the low ranks' zeros weigh less than in a plain mean


def test_hetlora_stays_where_nobody_added_anything():
    layout = layout_of()
    combined = rule(SECTIONS["hetlora"], layout)
    old = initial(combined, layout, torch.Generator().manual_seed(8))  # every B is zero
    new, _ = combined.step(
        old.double(), combined.contribution(old, torch.zeros_like(old)).double(), {}, 1.0, 0
    )
    assert torch.equal(new, old.double())


@pytest.mark.parametrize("kind", ["fedex_lora", "flora"])
def test_mixed_ranks_keep_the_mean_of_the_products(kind):
    layout, draws, ranks = layout_of(), torch.Generator().manual_seed(9), [1, 3, 8, 5]
    combined = rule(SECTIONS[kind], layout)
    vector = initial(combined, layout, draws)
    for number in range(3):
        before, ends = folded(layout, vector), mixed_ends(layout, vector, ranks, 0.3, draws)
        mean = sum(
            combined.contribution(vector, end - vector[: layout.numel]).double() for end in ends
        ) / len(ends)
        vector = combined.step(vector.double(), mean, {}, 1.0, number)[0].float()
        local = [products(layout, end) for end in ends]
        assert (
            error(
                model(layout, vector),
                {layer: before[layer] + sum(p[layer] for p in local) / len(local) for layer in LAYERS},
            )
            < 1e-5
        )
