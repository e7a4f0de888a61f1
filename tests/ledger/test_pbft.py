"""Replicas agree, whatever a third of them says and in whatever order messages come (Castro and Liskov
1999)."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedray.ledger.agreement import agreement
from fedray.ledger.pbft import CLIENT, Group, Message, Replica
from fedray.scenario.consensus import Pbft

A = "a" * 64
B = "b" * 64


def times(section, round_number=1):
    made = agreement(section, round_number)
    return made, [sent.message.kind for sent in made.messages]


@pytest.mark.parametrize("n", [4, 7, 10])
def test_without_faults_messages_are_as_many_as_the_protocol_has(n):
    _, kinds = times(Pbft(kind="pbft", validators=n))
    expected = {
        "request": n,
        "pre-prepare": n - 1,
        "prepare": (n - 1) ** 2,
        "commit": n * (n - 1) + n,  # to each other and to the server
    }
    assert {kind: kinds.count(kind) for kind in set(kinds)} == expected


def test_an_agreement_takes_four_delays_where_links_have_no_end():
    section = Pbft(kind="pbft", latency_s=0.01, rate_bps=1e15)
    made, _ = times(section)
    assert made.prepared_s == pytest.approx(0.03)  # request, pre-prepare, prepare
    assert made.committed_s == pytest.approx(0.04)


@pytest.mark.parametrize("behaviour", ["silent", "equivocating"])
def test_a_faulty_primary_costs_one_timeout_and_its_successor_stays(behaviour):
    section = Pbft(kind="pbft", latency_s=0.01, rate_bps=1e15, timeout_s=0.5, **{behaviour: [0]})
    first, kinds = times(section)
    # the request, the timeout, view-change, new-view, prepare, commit
    assert first.committed_s == pytest.approx(0.01 + 0.5 + 4 * 0.01)
    assert first.view == 1
    assert "new-view" in kinds
    second, kinds = times(section, 2)
    assert (second.view, second.committed_s) == (1, pytest.approx(0.04))
    assert "new-view" not in kinds


def test_two_faulty_primaries_in_a_row_cost_two_timeouts_of_which_the_second_is_twice_as_long():
    section = Pbft(kind="pbft", validators=7, latency_s=0.01, rate_bps=1e15, timeout_s=0.5, silent=[0, 1])
    made, _ = times(section)
    assert made.view == 2
    assert 1.5 < made.committed_s < 1.6


def test_a_primary_that_proposes_two_heads_is_shown_by_its_own_proposals():
    made, _ = times(Pbft(kind="pbft", equivocating=[0]))
    ((one, other),) = made.equivocated
    assert (one.sender, one.view) == (other.sender, other.view) == (0, 0)
    assert one.digest != other.digest
    assert times(Pbft(kind="pbft", silent=[0]))[0].equivocated == []


class Trusting(Replica):
    """Takes any block that a primary proposes, as where the client handed in two."""

    def accepts(self, digest):
        return True


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([4, 7]), st.integers(0, 2**32))
def test_honest_replicas_never_commit_two_blocks_whatever_the_order_and_the_faulty_ones_say(n, seed):
    draws = random.Random(seed)
    group = Group(n)
    faulty = set(range(group.faulty))  # the first primaries: the worst
    replicas = {i: Trusting(i, group, 1, 0) for i in range(n) if i not in faulty}
    kinds = ("pre-prepare", "prepare", "commit")
    lies = [Message(k, 1, v, d, i) for i in faulty for k in kinds for v in (0, 1) for d in (A, B)]
    lies += [Message("view-change", 1, v, "", i) for i in faulty for v in (1, 2)]
    on_the_way = [(lie, i) for lie in lies for i in replicas if draws.random() < 0.5]
    on_the_way += [(Message("request", 1, 0, A, CLIENT), i) for i in replicas]
    while on_the_way:
        if draws.random() < 0.02:
            number = draws.choice(sorted(replicas))
            out = replicas[number].expire(replicas[number].view)
        else:
            message, number = on_the_way.pop(draws.randrange(len(on_the_way)))
            out = replicas[number].receive(message)
        while out:
            message = out.pop()
            on_the_way += [(message, i) for i in replicas if i != number]
            out += replicas[number].receive(message)
        assert len({r.decided for r in replicas.values()} - {None}) <= 1


def test_a_new_view_proposes_what_may_have_been_committed():
    group = Group(4)
    proposal = Message("pre-prepare", 1, 0, A, 0)
    prepares = tuple(Message("prepare", 1, 0, A, i) for i in (1, 2))
    shown = Message("view-change", 1, 1, "", 2, (proposal, *prepares))
    others = [Message("view-change", 1, 1, "", i, (Message("pre-prepare", 1, 0, B, 0),)) for i in (1, 3)]
    assert group.committed_before([*others, shown]) == A
    assert group.committed_before(others) is None
    of_another_round = replace(shown, round=2)
    assert group.committed_before([of_another_round]) is None
    one_too_few = replace(shown, proof=shown.proof[:2])
    assert group.committed_before([one_too_few]) is None


def test_a_message_without_its_senders_signature_counts_for_nothing():
    group = Group(4, verifies=lambda message: message.sender != 3)
    replica = Replica(1, group, 1, 0)
    replica.receive(Message("request", 1, 0, A, CLIENT))
    (own,) = replica.receive(Message("pre-prepare", 1, 0, A, 0))
    assert replica.receive(own) == []
    assert replica.receive(Message("prepare", 1, 0, A, 3)) == []
    assert [m.kind for m in replica.receive(Message("prepare", 1, 0, A, 2))] == ["commit"]
