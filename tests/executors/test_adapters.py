"""Rules for adapters on a real Stable Diffusion: who holds which rank, what is sent, and what is exported."""

import json

import pytest
import torch
from safetensors.torch import load_file

from fedray.executors.serial import SerialExecutor
from fedray.network.radio import Radio
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.tuning.lora import truncation
from tests.helpers import begin, job_of, rows, run, tiny, unevaluated

PARALLEL = {"topology": {"kind": "parallel"}, "evaluation": {}, "runtime": {"executor": "serial"}}
TWO_A_ROUND = PARALLEL | {"population": {"clients": 5, "per_round": 2}}
RANKS = PARALLEL | {"tuning.rank": 4, "tuning.ranks": [1, 4]}


@pytest.mark.parametrize("kind", ["hetlora", "fedavg"])
def test_a_client_of_a_low_rank_trains_its_own_rows_and_leaves_the_others_zero(kind, tmp_path):
    _, job = job_of(tiny(tmp_path, TWO_A_ROUND | RANKS | {"aggregation": {"kind": kind}}))
    executor = SerialExecutor(job)
    begin(executor)
    scenario, work = job.scenario, executor.clients
    for t in (1, 2):  # in the second, B is no longer zero
        list(executor.run_round(schedule_round(scenario, Radio(scenario.network), t)))
    flat = work.model.flat
    for client, rank in ((0, 1), (1, 4), (2, 1)):
        work.train_all(executor.buffer, {}, 100, 3, [client], [None])
        held = truncation(flat.layout, rank)
        changed = flat.all != flat.layout.view(executor.buffer)
        assert not flat.all[~held].any()
        assert changed[held].float().mean() > 0.9


def test_each_rank_pays_for_its_own_bytes_both_ways_and_the_plan_names_the_most(tmp_path):
    transforms = [{"kind": "top_k", "fraction": 0.1}]
    file = tiny(tmp_path, RANKS | {"aggregation": {"kind": "hetlora", "transforms": transforms}})
    planned = plan(job_of(file)[0])
    run(file, tmp_path / "run")
    numbers, sends = (
        planned["trainable_parameters"],
        [e for e in rows(tmp_path / "run" / "timeline.jsonl") if e["event"] == "send"],
    )
    down = {e["peer"]: e["bytes"] for e in sends if e["direction"] == "downlink"}
    up = {e["node"]: e["bytes"] for e in sends if e["direction"] == "uplink"}
    for client in range(5):
        have = numbers // 4 if client % 2 == 0 else numbers
        assert down[f"client-{client}"] == 4 * have
        assert up[f"client-{client}"] == pytest.approx(
            round(0.1 * have) * 4 + min(4 * round(0.1 * have), -(-have // 8))
        )
    assert planned["payload_bytes_downlink"] == max(down.values()) == planned["payload_bytes"]
    assert planned["payload_bytes_uplink"] == max(up.values())


def test_what_changed_in_the_base_goes_down_as_the_adapters_that_a_client_missed_or_whole(tmp_path):
    changes = TWO_A_ROUND | {"training.rounds": 5, "tuning.rank": 16, "aggregation": {"kind": "flora"}}
    file = tiny(tmp_path, changes)
    planned = plan(job_of(file)[0])
    with unevaluated():
        result = run(file, tmp_path / "run")
    adapter = planned["payload_bytes"]
    whole = planned["payload_bytes_downlink"] - adapter
    done, got, sent = 0, {}, []
    for t in range(1, 6):
        clients = []
        for e in rows(tmp_path / "run" / "timeline.jsonl"):
            if (e["round"], e["direction"]) == (t, "downlink"):
                clients.append(e["peer"])
                sent.append(e["bytes"] - adapter)
                assert sent[-1] == min(whole, done - got.get(e["peer"], 0))
        got |= dict.fromkeys(clients, done)
        done += adapter * len(clients)
    assert sent[:2] == [0, 0]  # nothing has changed yet
    assert planned["changes_sent"] == {"stacked": sum(n < whole for n in sent), "whole": sent.count(whole)}
    assert min(planned["changes_sent"].values()) > 0
    assert planned["total"]["bytes_downlink"] == result["final"]["bytes_downlink"]


@pytest.mark.parametrize("kind", ["ffa_lora", "hetlora", "fedex_lora", "flora"])
def test_every_rule_ends_with_a_model_that_has_learnt_and_opens_in_diffusers(kind, tmp_path):
    from diffusers import StableDiffusionPipeline

    mixed = {} if kind == "ffa_lora" else {"tuning.ranks": [2, 4]}
    file = tiny(tmp_path, TWO_A_ROUND | {"tuning.rank": 4} | mixed | {"aggregation": {"kind": kind}})
    result = run(file, tmp_path / "run")
    assert result["status"] == "done"
    model = tmp_path / "run" / "model"
    pipeline = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
    base = SerialExecutor(job_of(file)[1]).evaluator._model.learner.parts["unet"].state_dict()
    own = {name.replace(".base_layer", ""): tensor for name, tensor in base.items() if ".lora_" not in name}
    changed = {
        name for name, tensor in pipeline.unet.state_dict().items() if not torch.equal(tensor, own[name])
    }
    assert changed
    assert all(".to_" in name or ".proj_" in name or ".ff." in name for name in changed)
    assert (model / "pytorch_lora_weights.safetensors").is_file() == (kind in ("ffa_lora", "hetlora"))
    if kind == "hetlora":
        shapes = {
            t.shape[0]
            for n, t in load_file(model / "pytorch_lora_weights.safetensors").items()
            if ".lora_A." in n
        }
        assert shapes == {4}  # the global adapter has the whole rank
    assert json.loads((tmp_path / "run" / "result.json").read_text())["final"]["failed"] == 0
