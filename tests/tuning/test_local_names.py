"""What stays at home by a name of its own: normalization layers (FedBN), and an adapter's B (FedSA-LoRA)."""

import numpy as np
import pytest
import torch

from fedray.planning.plan import plan
from fedray.runs.citations import bibtex
from fedray.scenario import ScenarioError
from tests.helpers import begun, garments, job_of, tiny
from tests.personal.toys import play

TWO = {"population": {"clients": 2}, "data.partition": {"kind": "iid"}}
NORMS = {"tuning": {"kind": "full", "local": ["norms"]}}
CNN = {"model": {"kind": "classifier", "network": "cnn_norm"}}
LORA = {
    "topology": {"kind": "parallel"},
    "tuning": {"kind": "lora", "rank": 2, "alpha": 2, "targets": "attention", "local": ["*.lora_B.*"]},
    "population": {"clients": 5, "per_round": 2},
    "training.batch_size": 1,
    "training.local_steps": 2,  # in the first one A has no gradient: B is zero
    "evaluation": {},
}
CHANNELS = 32 + 64  # that are normalised


def test_norms_are_scales_shifts_and_running_means_of_every_normalization_layer(tmp_path):
    executor = begun(garments(tmp_path, TWO | CNN | NORMS))
    home = executor.clients.model.flat.home_layout
    of_layer = ("running_mean", "running_var", "weight", "bias")
    assert set(home.names) == {f"network.{layer}.{name}" for layer in (1, 5) for name in of_layer}
    assert home.numel == 4 * CHANNELS
    assert not set(home.names) & set(executor.layout.names)


def test_of_group_normalization_scales_and_shifts_stay(tmp_path):
    group = {"model": {"kind": "classifier", "network": "cnn_norm", "norm": "group"}}
    executor = begun(garments(tmp_path, TWO | group | NORMS))
    assert executor.clients.model.flat.home_layout.numel == 2 * CHANNELS


def test_a_client_s_norms_reach_no_other_and_no_server(tmp_path):
    """Two runs that differ in client 0's kept norms alone: what client 1 keeps of them, and what it is sent
    in the same round, are the same bits."""
    one, other = (begun(garments(tmp_path, TWO | CNN | NORMS, f"{i}.yaml")) for i in range(2))
    for executor in (one, other):
        play(executor, 1)
    other.client_states[0] = {"home": other.client_states[0]["home"] + 1}
    before = other.buffer.copy()
    for executor in (one, other):
        play(executor, 2)
    assert np.array_equal(one.client_states[1]["home"], other.client_states[1]["home"])
    assert not np.array_equal(one.client_states[0]["home"], other.client_states[0]["home"])
    assert not np.array_equal(before, other.buffer)


def test_beside_norms_other_weights_may_stay_and_papers_are_cited(tmp_path):
    both = TWO | CNN | {"tuning": {"kind": "full", "local": ["norms", "network.11.*"]}}
    loaded, _ = job_of(garments(tmp_path, both))
    assert plan(loaded)["client_state_bytes"] == 4 * (4 * CHANNELS + 1290)
    assert "li2021fedbn" in bibtex(loaded.scenario)
    assert "arivazhagan2019federated" in bibtex(loaded.scenario)
    only = job_of(garments(tmp_path, TWO | CNN | NORMS, "only.yaml"))[0]
    assert "arivazhagan2019federated" not in bibtex(only.scenario)


def test_norms_of_a_model_that_has_none_are_refused(tmp_path):
    with pytest.raises(ScenarioError, match=r"tuning\.local: got norms, of which this model has none"):
        plan(job_of(garments(tmp_path, TWO | NORMS))[0])


def test_with_fedsa_lora_every_a_is_averaged_and_every_b_stays_with_its_client(tmp_path):
    file = tiny(tmp_path, LORA)
    loaded, _ = job_of(file)
    assert "guo2025selective" in bibtex(loaded.scenario)
    assert "arivazhagan2019federated" not in bibtex(loaded.scenario)
    executor = begun(file)
    flat = executor.clients.model.flat
    assert all(name.endswith(".lora_A.weight") for name in flat.layout.names)
    assert {n.replace("lora_B", "lora_A") for n in flat.home_layout.names} == set(flat.layout.names)
    assert plan(loaded)["payload_bytes"] == 4 * flat.layout.numel
    clients = play(executor, 1)
    one, other = (torch.from_numpy(executor.client_states[client]["home"]) for client in clients)
    assert one.any()
    assert not torch.equal(one, other)
    assert not np.array_equal(executor.buffer, executor.initial)
