"""Language models at the size that benchmarks have them: counted from shipped configurations, without
weights."""

import pytest

from fedray import shipped
from fedray.checks import check
from tests.planning.test_paper_sizes import counted

MIB = 1024**2
FLOWERTUNE = ("flowertune-general", "flowertune-finance", "flowertune-medical", "flowertune-code")


def transfers(scenario):
    """Of a whole run: down and up again, for every client of every round."""
    return 2 * scenario.population.clients_per_round * scenario.training.rounds


@pytest.mark.parametrize(
    ("name", "whole", "adapter", "payload_bytes"),
    [
        # the sizes that their repositories give
        ("flowertune-general", 7_248_023_552, 13_631_488, 54_525_952),
        ("flowertune-smollm2", 134_515_008, 460_800, 1_843_200),
        ("openfedllm-alpaca", 6_738_415_616, 16_777_216, 67_108_864),
    ],
)
def test_adapters_of_a_language_model_are_counted_without_its_weights(name, whole, adapter, payload_bytes):
    learner, layout = counted(check(shipped.scenarios()[name]))
    assert (layout.trained, layout.nbytes) == (adapter, payload_bytes)
    base = [p for path, p in learner.network.named_parameters() if ".lora_" not in path]
    assert sum(p.numel() for p in base) == whole


def test_bytes_are_those_that_the_leaderboard_publishes():
    # communication_cost_records/SmolLM2-135M-Instruct.txt of T-IoI@UNR's entry: 747.07 MB after 100 rounds,
    # of messages of .npy arrays, each with a header of 128 bytes, and with DoRA's magnitudes beside LoRA
    arrays = 30 * 2 * 3
    magnitudes = 30 * (576 + 192)
    smallest = check(shipped.scenarios()["flowertune-smollm2"]).scenario
    total = transfers(smallest) * (1_843_200 + 4 * magnitudes + 128 * arrays)
    assert round(total / MIB, 2) == 747.07
    # flower.ai/benchmarks/llm-leaderboard/nlp, the baseline: 40.7 GB
    general = check(shipped.scenarios()["flowertune-general"]).scenario
    assert transfers(general) * 54_525_952 / MIB / 1024 == pytest.approx(40.7, abs=0.1)


def test_flowertunes_challenges_differ_in_clients_and_data_alone():
    scenarios = [check(shipped.scenarios()[name]).scenario for name in FLOWERTUNE]
    clients = [(s.population.clients, s.population.per_round, s.data.input) for s in scenarios]
    assert clients == [(20, 2, "ignore"), (50, 5, "append"), (20, 2, "alone"), (10, 2, "append")]
    first, *others = (s.model_dump(exclude={"name", "description", "population", "data"}) for s in scenarios)
    assert all(other == first for other in others)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        # cosine_annealing(round, 200, 5e-5, 1e-6) of flowertune-llm-general-nlp/models.py, rounds from 1
        ("flowertune-general", {1: 4.9996978e-05, 100: 2.55e-05, 200: 1e-06}),
        # cosine_learning_rate(round, 200, 5e-5, 1e-6) of OpenFedLLM/utils/utils.py, rounds from 0
        ("openfedllm-alpaca", {1: 5e-05, 101: 2.55e-05, 200: 1.0030221e-06}),
    ],
)
def test_learning_rates_over_rounds_are_the_benchmarks(name, rate):
    training = check(shipped.scenarios()[name]).scenario.training
    for round_number, expected in rate.items():
        factor = training.rate_factor(round_number, 0, training.local_steps)
        assert training.optimizer.learning_rate * factor == pytest.approx(expected, rel=1e-6)
