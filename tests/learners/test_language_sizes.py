"""Language models at their real sizes, counted from shipped configurations without weights or memory."""

import pytest
import torch

from fedray.learners.contexts import LearnerContext
from fedray.learners.language_model import LanguageModel
from fedray.learners.learners import NO_DATA
from fedray.planning.counting import flops_per_sample
from fedray.scenario.language_model import LanguageModel as Section
from fedray.scenario.tuning import Lora
from fedray.transport.buffer import Layout
from fedray.tuning.lora import LoraTuning

META = LearnerContext(NO_DATA, device=torch.device("meta"))


@pytest.mark.parametrize(
    ("base", "parameters", "attention", "linear"),
    [  # parameters by their model cards, adapters of rank 8 by hand
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008, 460_800, 2_442_240),
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768, 540_672, 4_399_104),
        ("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400, 851_968, 5_636_096),
    ],
)
def test_adapters_of_a_base_on_the_hub_are_counted_without_its_weights(base, parameters, attention, linear):
    section = Section(kind="language_model", base=base)
    for targets, expected in (("attention", attention), ("all-linear", linear)):
        learner = LanguageModel.load(section, META)
        assert sum(p.numel() for p in learner.network.parameters()) == parameters
        tuning = LoraTuning(Lora(kind="lora", rank=8, targets=targets), seed=0)
        layout = Layout.of(tuning.apply(learner).travelling, "bf16")
        assert (layout.trained, layout.nbytes) == (expected, 2 * expected)
        (file, size), *_ = tuning.export_files(learner, layout).items()
        assert file == "adapter/adapter_model.safetensors"
        assert 2 * expected < size < 2 * expected + 200 * len(layout.names)


def test_a_step_takes_two_operations_a_weight_and_token_forwards_and_as_many_backwards():
    """Beside a frozen base, whose weights get no gradient. The embedding is looked up, but its weights are
    the head's, too. Behind each of attention's two products there are two on the way back."""
    tokens = 128
    learner = LanguageModel.load(
        Section(kind="language_model", base="HuggingFaceTB/SmolLM2-135M", max_length=tokens), META
    )
    LoraTuning(Lora(kind="lora", rank=8), seed=0).apply(learner)
    weights = 134_515_008
    attention = 3 * 4 * tokens**2 * 576 * 30
    adapters = 6 * 460_800 * tokens
    assert flops_per_sample(learner) == pytest.approx(4 * weights * tokens + attention + adapters, rel=0.005)
