"""One chain of hooks in parallel, relay and split: on the client, at the server, on what is combined."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import fedray
from fedray import Hook
from fedray.engine import RunFailed
from fedray.executors import chains
from fedray.network.radio import Radio
from fedray.planning.plan import plan
from fedray.planning.round import schedule_round
from fedray.scenario import ScenarioError
from fedray.scenario.transforms import Clip, Quantize, TopK
from fedray.transport.compression import hook_chain
from fedray.transport.compression import hooks as hooks_of
from fedray.transport.hooks import HookChain, HookContext
from tests.helpers import begun, garments, job_of, rows, run

NUMBERS = 225034  # of the small classifier
PARALLEL = {"data.partition": {"kind": "iid"}}
ONE = {"population": {"clients": 1, "per_round": 1}}
RELAY = PARALLEL | {"topology": {"kind": "relay", "chains": 2}}
CUT = {"kind": "split", "cut": "conv1", "tail": "loss"}
SPLIT = PARALLEL | {"topology": CUT}
VANILLA = PARALLEL | {
    "topology": CUT | {"variant": "vanilla"},
    "runtime": {"executor": "serial", "failures": {"data": "abort"}},
}
FEWER = {
    "quantize": {"kind": "quantize", "bits": 8},
    "top_k": {"kind": "top_k", "fraction": 0.1},
    "random_k": {"kind": "random_k", "fraction": 0.1},
}
TOPOLOGIES = {"parallel": PARALLEL, "relay": RELAY, "split": SPLIT, "split, one by one": VANILLA}

OWN = '''"""Hooks as a user writes them."""

import torch
from pydantic import Field

import fedray

calls = []  # which method, with whose update, in which round


class Recorder(fedray.Hook):
    def on_client(self, update, context):
        calls.append(("client", context.client, context.round_number, len(update)))
        return update

    def on_server(self, update, context):
        calls.append(("server", context.client, context.round_number, len(update)))
        return update

    def on_combined(self, combined, part, context):
        calls.append(("combined", context.client, context.round_number, combined.shape[1]))
        return combined


class Times(fedray.Hook):
    class Section(fedray.Hook.Section):
        client: float = Field(default=1.0, description="On the client.")
        server: float = Field(default=1.0, description="At the server, each.")
        combined: float = Field(default=1.0, description="At the server, all.")

    def on_client(self, update, context):
        return update.mul_(self.section.client)

    def on_server(self, update, context):
        return update.mul_(self.section.server)

    def on_combined(self, combined, part, context):
        return combined * self.section.combined


class Counted(fedray.Hook):
    """Sends a client's n-th update n times as large."""

    class Section(fedray.Hook.Section):
        keeps_state = True

    def on_client(self, update, context):
        n = context.state.get("n", torch.zeros(1)) + 1
        context.kept["n"] = n
        return n * update


class Forgetful(fedray.Hook):
    def on_client(self, update, context):
        context.kept["n"] = torch.ones(1)
        return update


class Noisy(fedray.Hook):
    def on_client(self, update, context):
        draws = torch.Generator().manual_seed(context.key("noise"))
        return update + 0.01 * torch.randn(update.shape, generator=draws)


class Raising(fedray.Hook):
    class Section(fedray.Hook.Section):
        at: str

    def on_client(self, update, context):
        return self._maybe("client", update)

    def on_server(self, update, context):
        return self._maybe("server", update)

    def on_combined(self, combined, part, context):
        return self._maybe("combined", combined)

    def _maybe(self, here, update):
        if here == self.section.at:
            raise ValueError("no such luck")
        return update

'''


def with_hooks(*hooks, rule="fedavg"):
    return {"aggregation": {"kind": rule, "transforms": list(hooks)}}


def own(name, **options):
    return {"kind": f"own_hooks:{name}", **options}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own_hooks.py").write_text(OWN)
    return tmp_path


def scheduled(executor, round_number=1):
    scenario, work = executor.job.scenario, None
    if scenario.topology.splits_model:
        work = executor.workload().of(scenario, executor.shared.samples)
    return schedule_round(scenario, Radio(scenario.network), round_number, executor.shared, work)


def numbers(executor):
    return executor.layout.view(executor.buffer).float().clone()


def after_rounds(file, rounds=1):
    """The global numbers before the first round, then after each."""
    executor = begun(file)
    seen = [numbers(executor)]
    for t in range(1, rounds + 1):
        assert all(report.failure is None for report in executor.run_round(scheduled(executor, t)))
        seen.append(numbers(executor))
    return executor, seen


def client_part(executor):
    """[numel] bool: the numbers that clients hold."""
    if not hasattr(executor, "split"):
        return torch.ones(executor.layout.numel, dtype=torch.bool)
    held = torch.zeros(executor.layout.numel, dtype=torch.bool)
    held[executor.clients.model.client.places] = True
    return held


# --- clipping


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_only_clients_update_arrives_with_the_norm_that_it_is_clipped_to(topology, folder):
    base = TOPOLOGIES[topology] | ONE
    if topology == "relay":
        base = base | {"topology": {"kind": "relay"}}
    free_file = garments(folder, base, "free.yaml")
    file = garments(folder, base | with_hooks({"kind": "clip", "norm": 1e-3}), "clip.yaml")
    _, (before, free) = after_rounds(free_file)
    executor, (_, clipped) = after_rounds(file)
    held = client_part(executor)
    change, unclipped = (clipped - before)[held].double(), (free - before)[held].double()
    assert unclipped.norm() > 2e-3
    assert change.norm().item() == pytest.approx(1e-3, rel=1e-4)
    torch.testing.assert_close(change, unclipped * 1e-3 / unclipped.norm(), rtol=0, atol=1e-7)
    # what the server holds of a split model it changes itself
    torch.testing.assert_close(clipped[~held], free[~held], rtol=0, atol=0)


def test_the_mean_of_clipped_updates_is_that_of_each_clipped_by_hand(folder):
    norm = 2e-3
    file = garments(folder, PARALLEL | with_hooks({"kind": "clip", "norm": norm}))
    executor = begun(file)
    before, work, weight = numbers(executor), executor.clients, executor._weight
    schedule = scheduled(executor)
    updates = []
    for client in schedule.clients:
        work.run(1, client, before, {})
        change = (work.model.flat.all - before).double()
        updates.append((weight(client), change * min(1.0, norm / change.norm().item())))
    list(executor.run_round(schedule))
    expected = sum(n * u for n, u in updates) / sum(n for n, _ in updates)
    torch.testing.assert_close((numbers(executor) - before).double(), expected, rtol=0, atol=1e-7)


def test_a_clip_that_nobody_reaches_leaves_the_model_as_it_would_be(folder):
    loose = with_hooks({"kind": "clip", "norm": 1e6})
    for name, topology in TOPOLOGIES.items():
        _, (_, free) = after_rounds(garments(folder, topology, f"{name} free.yaml"))
        _, (_, clipped) = after_rounds(garments(folder, topology | loose, f"{name}.yaml"))
        # taken away from what came and added again, a number may differ in its last bit
        torch.testing.assert_close(free, clipped, rtol=1e-6, atol=1e-8)


def test_in_a_relay_each_client_hands_on_no_more_than_its_norm_from_what_it_got(folder):
    changes = RELAY | {"topology": {"kind": "relay"}} | with_hooks({"kind": "clip", "norm": 1e-3})
    executor, (before, after) = after_rounds(garments(folder, changes))
    (way,) = chains(scheduled(executor))
    assert len(way) == 5
    assert 1e-3 < (after - before).norm() <= 5 * 1e-3 * (1 + 1e-4)


def test_hooks_behind_a_clip_may_lengthen_an_update_and_what_writes_it_as_bytes_may_not():
    update = torch.randn(5000, generator=torch.Generator().manual_seed(0))

    class Noise(Hook):
        def on_client(self, update, context):
            return update + torch.ones_like(update)

    noise = Noise(Clip(kind="clip", norm=1))
    clip, eight_bits = Clip(kind="clip", norm=1.0), Quantize(kind="quantize", bits=8)
    quantized = HookChain(hooks_of([clip, eight_bits]), torch.float32).through(update, HookContext(0, 1, 0))
    assert quantized.norm() <= 1 + 1e-6
    chain = HookChain(hooks_of([clip, eight_bits]), torch.float32)
    chain = type(chain)([*chain.hooks, noise, *chain.codecs], torch.float32)
    # a clipped update of length 1 and a one on each number: 70 long
    assert chain.through(update, HookContext(0, 1, 0)).norm() == pytest.approx(5000**0.5, rel=0.02)


# --- fewer bytes


@pytest.mark.parametrize(
    ("transforms", "uplink", "levels"),
    [
        ([{"kind": "quantize", "bits": 8}], NUMBERS + 4 * -(-NUMBERS // 1024), 255),
        ([{"kind": "quantize", "bits": 4}], NUMBERS // 2 + 4 * -(-NUMBERS // 1024), 15),
        ([{"kind": "top_k", "fraction": 0.01, "error_feedback": False}], 2250 * 8, None),
    ],
    ids=["eight bits", "four bits", "the largest"],
)
def test_fewer_bytes_are_planned_and_sent_and_what_arrives_is_what_they_hold(
    transforms, uplink, levels, folder
):
    file = garments(folder, PARALLEL | ONE | with_hooks(*transforms) | {"training.rounds": 1})
    loaded, _ = job_of(file)
    assert plan(loaded)["payload_bytes_uplink"] == uplink
    _, (before, after) = after_rounds(file)
    _, (_, whole) = after_rounds(garments(folder, PARALLEL | ONE, "whole.yaml"))
    change, full = (after - before).double().numpy(), (whole - before).double().numpy()
    if levels is None:
        kept = np.flatnonzero(change)
        assert len(kept) == 2250
        assert np.allclose(change[kept], full[kept], rtol=0, atol=1e-7)
        assert np.abs(full[kept]).min() >= np.abs(np.delete(full, kept)).max() - 1e-7
    else:
        block, sent = change[:1024], full[:1024]
        step = np.abs(sent).max() * 2 / (levels - 1)
        assert np.abs(block - sent).max() <= step * 1.001
        assert len(np.unique(np.round(block / step))) <= levels


def test_the_timeline_of_a_run_has_the_bytes_that_its_hooks_make(folder):
    file = garments(folder, PARALLEL | ONE | with_hooks(FEWER["quantize"]) | {"training.rounds": 1})
    run(file, folder / "run")
    ups = [r["bytes"] for r in rows(folder / "run" / "timeline.jsonl") if r.get("direction") == "uplink"]
    assert ups == [NUMBERS + 4 * -(-NUMBERS // 1024)]


def test_what_top_k_left_is_the_clients_own_and_arrives_in_the_next_round(folder):
    file = garments(folder, PARALLEL | with_hooks({"kind": "top_k", "fraction": 0.01}))
    executor, _ = after_rounds(file, 2)
    unsent = {client: state["unsent"] for client, state in executor.client_states.items()}
    assert sorted(unsent) == [0, 1, 2, 3, 4]
    assert all(not np.array_equal(unsent[0], unsent[k]) for k in (1, 2, 3, 4))
    assert all(len(np.flatnonzero(u == 0)) >= 2250 for u in unsent.values())


# --- hooks of a user's own


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_hook_is_called_where_it_says_with_the_clients_whose_update_it_is(topology, folder):
    executor = begun(garments(folder, TOPOLOGIES[topology] | with_hooks(own("Recorder"))))
    from own_hooks import calls

    calls.clear()
    schedule = scheduled(executor)
    list(executor.run_round(schedule))
    part = int(client_part(executor).sum())
    ways = chains(schedule)
    seen = {
        where: sorted(c[1:] for c in calls if c[0] == where) for where in ("client", "server", "combined")
    }
    assert seen["client"] == [(client, 1, part) for client in range(5)]
    ends = {
        "parallel": range(5),
        "relay": sorted(way[-1] for way in ways),
        "split": range(5),
        "split, one by one": [k for k in range(5) if k in {c[1] for c in calls if c[0] == "server"}],
    }[topology]
    assert seen["server"] == [(client, 1, part) for client in ends]
    assert len(seen["server"]) == {"relay": 2, "split, one by one": 1}.get(topology, 5)
    assert sum(c[2] for c in seen["combined"]) == NUMBERS
    assert {c[0] for c in seen["combined"]} == {-1}


@pytest.mark.parametrize("topology", ["parallel", "split"])
@pytest.mark.parametrize("where", ["client", "server"])
def test_an_update_doubled_on_its_way_moves_the_clients_part_twice_as_far(where, topology, folder):
    base = TOPOLOGIES[topology]
    _, (before, once) = after_rounds(garments(folder, base, "once.yaml"))
    file = garments(folder, base | with_hooks(own("Times", **{where: 2.0})), "twice.yaml")
    executor, (_, twice) = after_rounds(file)
    held = client_part(executor)
    torch.testing.assert_close((twice - before)[held], 2 * (once - before)[held], rtol=1e-5, atol=1e-7)
    assert torch.equal(twice[~held], once[~held])


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_what_is_combined_is_changed_over_the_whole_model_in_every_topology(topology, folder):
    base = TOPOLOGIES[topology]
    _, (before, once) = after_rounds(garments(folder, base, "once.yaml"))
    _, (_, half) = after_rounds(garments(folder, base | with_hooks(own("Times", combined=0.5)), "half.yaml"))
    torch.testing.assert_close(half - before, (once - before) / 2, rtol=1e-5, atol=1e-7)


def test_in_a_relay_the_server_scales_the_update_of_a_whole_chain(folder):
    _, (before, once) = after_rounds(garments(folder, RELAY, "once.yaml"))
    _, (_, twice) = after_rounds(garments(folder, RELAY | with_hooks(own("Times", server=2.0)), "twice.yaml"))
    torch.testing.assert_close(twice - before, 2 * (once - before), rtol=1e-5, atol=1e-7)


def test_hooks_go_in_their_order_before_what_writes_bytes(folder):
    tenfold = own("Times", client=10.0)
    clip = {"kind": "clip", "norm": 1e-3}
    lengths = []
    for i, hooks in enumerate([[clip, tenfold], [tenfold, clip]]):
        _, (before, after) = after_rounds(garments(folder, PARALLEL | ONE | with_hooks(*hooks), f"{i}.yaml"))
        lengths.append((after - before).norm().item())
    assert lengths == pytest.approx([1e-2, 1e-3], rel=1e-3)


STATEFUL = with_hooks(own("Counted"))


@pytest.mark.parametrize("topology", ["parallel", "relay"])
def test_a_hook_s_state_is_each_clients_own_and_counts_the_rounds_that_it_took_part_in(topology, folder):
    changes = TOPOLOGIES[topology] | STATEFUL | {"population": {"clients": 5, "per_round": 3}}
    executor = begun(garments(folder, changes))
    took_part = dict.fromkeys(range(5), 0)
    for t in (1, 2, 3):
        schedule = scheduled(executor, t)
        for client in schedule.clients:
            took_part[client] += 1
        list(executor.run_round(schedule))
    assert len(set(took_part.values())) > 1  # or the test shows nothing
    kept = {k: int(next(iter(state.values()))[0]) for k, state in executor.client_states.items()}
    assert kept == {client: n for client, n in took_part.items() if n}


def test_two_hooks_of_a_kind_and_what_feeds_back_keep_states_that_do_not_mix(folder):
    top_k = {"kind": "top_k", "fraction": 0.01}
    executor, _ = after_rounds(
        garments(folder, PARALLEL | with_hooks(own("Counted"), own("Counted"), top_k)), 2
    )
    state = executor.client_states[0]
    assert sorted(value.size for value in state.values()) == [1, 1, NUMBERS]
    assert [value[0] for value in state.values() if value.size == 1] == [2.0, 2.0]


def test_a_hook_s_state_goes_on_after_a_resume_of_a_relay_with_the_same_bits(folder):
    three = RELAY | STATEFUL | {"training.rounds": 3, "training.optimizer.learning_rate": 0.01}
    whole = run(garments(folder, three, "whole.yaml"), folder / "whole")
    run(garments(folder, three | {"training.rounds": 2}, "two.yaml"), folder / "two")
    went_on = fedray.open(folder / "two").resume(rounds=3, progress=False)
    assert went_on.result["weights_sha256"] == whole["weights_sha256"]
    kept = load_file(folder / "two" / "checkpoints" / "round-0003" / "client-0.safetensors")
    assert [value.tolist() for value in kept.values()] == [[3.0]]


def test_a_hook_that_keeps_a_state_without_saying_so_ends_the_run_with_what_to_write(folder):
    with pytest.raises(RunFailed, match=r"own_hooks:Forgetful: keeps n, expected keeps_state = True"):
        run(garments(folder, PARALLEL | with_hooks(own("Forgetful"))), folder / "run")
    facts = json.loads((folder / "run" / "error.json").read_text())
    assert (facts["round"], facts["client"], facts["stage"]) == (1, 0, "training")


@pytest.mark.parametrize(
    ("topology", "at", "client", "stage"),
    [
        ("parallel", "client", 0, "training"),
        ("parallel", "server", 0, "training"),
        ("parallel", "combined", None, "aggregating"),
        ("relay", "client", "any", "training"),
        ("relay", "server", "any", "adding its update"),
        ("split", "client", "any", "training"),
        ("split", "server", 0, "adding its update"),
    ],
)
def test_a_hook_that_raises_names_round_client_and_stage_and_is_no_clients_fault(
    topology, at, client, stage, folder
):
    file = garments(folder, TOPOLOGIES[topology] | with_hooks(own("Raising", at=at)))
    with pytest.raises(RunFailed, match="ValueError: no such luck"):
        run(file, folder / "run")
    facts = json.loads((folder / "run" / "error.json").read_text())
    assert (facts["error"], facts["round"], facts["stage"]) == ("ValueError", 1, stage)
    assert client in ("any", facts["client"])


def test_own_hooks_and_a_median_of_relays_have_the_bits_of_one_process_on_two_actors(
    cluster, weights_alone, folder
):
    hooks = with_hooks({"kind": "clip", "norm": 0.5}, own("Noisy"), own("Counted"), rule="median")
    changes = RELAY | hooks
    ray = {"runtime": {"executor": "ray", "actors": 2}}
    one = run(garments(folder, changes, "one.yaml"), folder / "one")
    two = run(garments(folder, changes | ray, "two.yaml"), folder / "two")
    assert one["weights_sha256"] == two["weights_sha256"]
    states = [
        load_file(folder / name / "checkpoints" / "round-0002" / "client-3.safetensors")
        for name in ("one", "two")
    ]
    assert states[0].keys() == states[1].keys()
    assert [v.tolist() for v in states[0].values()] == [v.tolist() for v in states[1].values()] == [[2.0]]


def test_draws_of_a_context_are_another_for_each_client_round_and_purpose():
    contexts = [HookContext(0, 1, 0), HookContext(0, 2, 0), HookContext(0, 1, 1), HookContext(1, 1, 0)]
    keys = [c.key(purpose) for c in contexts for purpose in ("noise", "mask")]
    assert len(set(keys)) == len(keys)
    assert dataclasses.replace(contexts[0]).key("noise") == keys[0]


# --- what is refused


@pytest.mark.parametrize("kind", FEWER)
@pytest.mark.parametrize(
    ("topology", "why"),
    [
        ({"kind": "relay"}, "none in a relay: what is handed on is the model, not an update"),
        (CUT, "none in a split: topology.compression is for what crosses the cut"),
        (
            {"kind": "parallel", "reduce": "allreduce"},
            "clip alone with topology.reduce allreduce: a ring adds",
        ),
    ],
    ids=["relay", "split", "ring"],
)
def test_what_writes_an_update_as_fewer_bytes_is_refused_with_why_where_no_update_is_sent(
    topology, why, kind, folder
):
    file = garments(folder, {"topology": topology} | with_hooks(FEWER[kind]))
    with pytest.raises(
        ScenarioError, match=rf":\d+: aggregation\.transforms: got {kind}, expected {re.escape(why)}"
    ):
        job_of(file)


def test_in_a_split_a_hook_that_keeps_a_state_is_refused_with_why(folder):
    with pytest.raises(
        ScenarioError, match=r"transforms: got own_hooks:Counted, expected none that keeps a state in a split"
    ):
        job_of(garments(folder, SPLIT | STATEFUL))


def test_in_a_ring_a_hook_that_looks_at_each_update_at_the_server_is_refused(folder):
    ring = {"topology": {"kind": "parallel", "reduce": "allreduce"}}
    assert plan(job_of(garments(folder, ring | with_hooks(own("Noisy")), "noisy.yaml"))[0])["rounds"] == 2
    with pytest.raises(ScenarioError, match="in a ring the server sees the sum alone"):
        plan(job_of(garments(folder, ring | with_hooks(own("Times"))))[0])


CODEC = '''
import numpy as np

import fedray
from fedray.transport.hooks import Codec, as_bytes


class Half(Codec):
    """Sends half precision."""

    def header_bytes(self, n):
        return 2 * n

    def left(self, n):
        return 0

    def encode(self, values, seed):
        return as_bytes(values.half()), values[:0]

    def decode(self, header, values, n, seed):
        import torch

        return torch.from_numpy(np.array(header)).view(torch.float16).float()
'''


def test_a_codec_of_ones_own_is_counted_and_sent_and_refused_where_no_update_is(folder):
    (folder / "own_codec.py").write_text(CODEC)
    hooks = with_hooks({"kind": "own_codec:Half"})
    file = garments(folder, PARALLEL | ONE | hooks)
    assert plan(job_of(file)[0])["payload_bytes_uplink"] == 2 * NUMBERS
    _, (before, after) = after_rounds(file)
    _, (_, whole) = after_rounds(garments(folder, PARALLEL | ONE, "whole.yaml"))
    torch.testing.assert_close(after - before, (whole - before).half().float(), rtol=0, atol=1e-6)
    for name, topology in (("relay", RELAY), ("split", SPLIT)):
        with pytest.raises(
            ScenarioError, match=r"aggregation\.transforms: got own_codec:Half, expected topology"
        ):
            plan(job_of(garments(folder, topology | hooks, f"{name}.yaml"))[0])


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (with_hooks({"kind": "quantise", "bits": 8}), r"aggregation\.transforms\.0\.kind"),
        (
            {"topology": CUT | {"compression": [{"kind": "quantise", "bits": 8}]}},
            r"topology\.compression\.0\.kind",
        ),
    ],
    ids=["of updates", "of activations"],
)
def test_the_old_word_quantise_names_quantize_with_file_and_line(changes, key, folder):
    file = garments(folder, changes)
    line = next(i for i, text in enumerate(file.read_text().splitlines(), 1) if "quantise" in text)
    with pytest.raises(ScenarioError) as refused:
        job_of(file)
    assert len(refused.value.problems) == 1
    assert re.search(
        rf"^{re.escape(str(file))}:{line}: {key}: got quantise, expected quantize", refused.value.problems[0]
    )


@pytest.mark.parametrize(
    "hooks",
    [
        [FEWER["quantize"], {"kind": "clip", "norm": 1}],
        [FEWER["top_k"], FEWER["random_k"]],
        [{"kind": "clip", "norm": 1}, {"kind": "clip", "norm": 2}],
        [FEWER["quantize"], own("Noisy")],
    ],
    ids=["clipped last", "two that thin out", "two clips", "an own one last"],
)
def test_hooks_out_of_order_or_twice_are_refused_with_the_order(hooks, folder):
    with pytest.raises(ScenarioError, match=r"aggregation\.transforms: got .*, expected .*in this order"):
        job_of(garments(folder, with_hooks(*hooks)))


def test_transforms_are_hooks_of_the_scenario_in_its_place(folder):
    file = garments(folder, with_hooks({"kind": "clip", "norm": 1.0}, FEWER["top_k"], FEWER["quantize"]))
    loaded, _ = job_of(file)
    assert [type(t) for t in loaded.scenario.aggregation.transforms] == [Clip, TopK, Quantize]
    chain = hook_chain(loaded.scenario)
    assert all(isinstance(hook, Hook) for hook in (*chain.hooks, *chain.codecs))
