import numpy as np
import pytest
import torch

from fedray.data import DatasetInfo
from fedray.executors.optimizer import FlatOptimizer
from fedray.learners.agent import Agent
from fedray.learners.agents.d2sac import D2Sac, Schedule
from fedray.learners.agents.dqn import Dqn, Transitions
from fedray.learners.agents.ppo import Judged, Ppo
from fedray.learners.agents.rollout import advantages, n_step_returns
from fedray.learners.agents.sac import Sac, Valued
from fedray.learners.contexts import LearnerContext
from fedray.scenario import agent as sections
from fedray.scenario.optimizer import AdamW
from fedray.transport.buffer import FlatParameters
from tests.learners.agents.worlds import Chains

REWARDS = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
ENDED = torch.tensor([[0.0], [1.0], [0.0], [0.0]])
VALUES = torch.tensor([[10.0], [20.0], [30.0], [40.0], [50.0]])


def test_n_step_returns_stop_at_the_end_of_an_episode_and_of_the_rollout():
    returns = n_step_returns(REWARDS, ENDED, 0.5, 3)
    # 1 + 2 / 2; 2; 4 + 8 / 2 and a quarter of what is behind; 8 and half of it
    assert returns.sums[:, 0].tolist() == [2.0, 2.0, 8.0, 8.0]
    assert returns.target(VALUES)[:, 0].tolist() == [2.0, 2.0, 8.0 + 50 / 4, 8.0 + 50 / 2]


def test_generalised_advantages_are_their_closed_form_at_both_ends_of_lambda():
    one_step = advantages(REWARDS, ENDED, VALUES, 0.5, 0.0)[:, 0]
    assert one_step.tolist() == [1 + 10 - 10, 2 - 20, 4 + 20 - 30, 8 + 25 - 40]
    far = advantages(REWARDS, ENDED, VALUES, 0.5, 1.0)
    whole = n_step_returns(REWARDS, ENDED, 0.5, len(REWARDS)).target(VALUES) - VALUES[:-1]
    assert far[:, 0].tolist() == pytest.approx(whole[:, 0].tolist())


def test_a_double_target_takes_the_trained_choice_at_the_received_worth():
    dqn = Dqn(sections.Dqn(kind="dqn", hidden=[4]), 2, 2)
    dqn.q = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        dqn.q.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    batch = Transitions(
        observations=torch.tensor([[3.0, 0.0]]),
        actions=torch.tensor([0]),
        returns=torch.tensor([2.0]),
        discounts=torch.tensor([0.5]),
        observations_behind=torch.tensor([[0.0, 1.0]]),  # whose second action the trained weights choose
        received_q=torch.tensor([[100.0, 6.0]]),  # and not the first
    )
    assert dqn.targets(batch).tolist() == [2.0 + 0.5 * 6.0]


def test_epsilon_falls_linearly_over_rounds():
    section = sections.Dqn(kind="dqn", epsilon_start=0.6, epsilon_end=0.1, epsilon_rounds=5)
    assert [section.epsilon(t) for t in (1, 2, 6, 9)] == pytest.approx([0.6, 0.5, 0.1, 0.1])


def test_ppo_ignores_what_goes_further_than_its_clip():
    ppo = Ppo(sections.Ppo(kind="ppo", value_weight=0.0, entropy_weight=0.0, hidden=[4]), 1, 2)
    ppo.policy = torch.nn.Linear(1, 2)
    torch.nn.init.zeros_(ppo.policy.weight)
    torch.nn.init.zeros_(ppo.policy.bias)  # so that either action has probability one half

    def loss(received, advantage):
        return ppo.loss(
            Judged(
                torch.ones(1, 1),
                torch.tensor([0]),
                torch.tensor([received]).log(),
                torch.tensor([advantage]),
                torch.zeros(1),
            )
        )

    assert float(loss(0.25, 1.0)) == pytest.approx(-1.2)  # a ratio of 2
    assert float(loss(0.25, -1.0)) == pytest.approx(2.0)
    assert float(loss(1.0, 1.0)) == pytest.approx(-0.5)
    assert float(loss(1.0, -1.0)) == pytest.approx(0.8)


def test_the_soft_values_are_christodoulous_and_the_actors_term_leaves_the_critics_alone():
    sac = Sac(sections.Sac(kind="sac", alpha=0.5, hidden=[4]), 1, 2)
    policy = torch.tensor([[0.25, 0.75]])
    q = [torch.tensor([[1.0, 4.0]]), torch.tensor([[2.0, 3.0]])]
    sac.critics = torch.nn.ModuleList(Constant(each) for each in q)
    # sum of p (min Q - alpha log p), Eq. 3 with the lower of both
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    value = float(sac._values(torch.ones(1, 1), policy.log()))
    assert value == pytest.approx(0.25 * 1 + 0.75 * 3 + 0.5 * entropy)
    trained = Sac(sections.Sac(kind="sac", hidden=[4]), 1, 2)
    batch = Valued(torch.ones(3, 1), torch.tensor([0, 1, 0]), torch.zeros(3))
    with torch.no_grad():  # both critics are where their targets are, so that only the actor's term is left
        batch.targets = trained.critics[0](batch.observations).gather(1, batch.actions[:, None])[:, 0]
        trained.critics[1].load_state_dict(trained.critics[0].state_dict())
    trained.loss(batch).backward()
    assert all(not p.grad.any() for p in trained.critics.parameters())
    assert any(p.grad.any() for p in trained.actor.parameters())


class Constant(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, observations):
        return self.value


def test_the_diffusion_policy_is_that_of_the_authors_code():
    """Numbers of github.com/Lizonghang/AGOD: its Diffusion with beta_schedule vp and 5 timesteps, and the
    policy that it makes with the same weights and noise."""
    schedule = Schedule(5)
    betas = [
        0.19587455,
        0.45881819,
        0.63578104,
        0.75487816,
        0.83503139,
    ]
    assert schedule.betas.tolist() == pytest.approx(betas, rel=1e-6)
    start = [1.11516237, 1.51588582, 2.51180100, 5.07334280, 12.49089527]
    noise = [
        0.49354547,
        1.13925850,
        2.30415797,
        4.97381258,
        12.45080184,
    ]
    assert schedule.start.tolist() == [pytest.approx(start, rel=1e-5), pytest.approx(noise, rel=1e-5)]
    first = [
        0.99999994,
        0.72843527,
        0.49841025,
        0.31268084,
        0.16565367,
    ]
    second = [0.0, 0.25511622, 0.40507808, 0.43346571, 0.39290130]
    assert schedule.mean.tolist() == [pytest.approx(first, rel=1e-5), pytest.approx(second, rel=1e-5)]
    variance = [0.0, 0.15911354, 0.42674165, 0.66090744, 0.80776613]
    assert schedule.variance.tolist() == pytest.approx(variance, rel=1e-5)
    agent = D2Sac(sections.D2Sac(kind="d2sac", hidden=[8, 8]), 3, 4)
    with torch.no_grad():
        for weight in agent.actor.parameters():
            weight.copy_(torch.linspace(-0.5, 0.5, weight.numel()).reshape(weight.shape))
        drawn = torch.linspace(-1, 1, 20).reshape(1, 5, 4)
        policy = agent.log_policy(torch.tensor([[0.1, -0.2, 0.3]]), drawn).exp()
    assert policy[0].tolist() == pytest.approx([0.29811847, 0.70188152, 0, 0], abs=1e-6)


ADAMW = AdamW(kind="adamw", learning_rate=3e-3)
BEST = [0.8**2, 0.8, 1.0]  # of going right, at each place of the chain


@pytest.mark.parametrize("kind", ["dqn", "ppo", "sac", "d2sac"])
def test_each_algorithm_learns_the_chain_whose_values_are_known(kind):
    exploring = {"epsilon_start": 1.0, "epsilon_end": 1.0} if kind == "dqn" else {}
    algorithm = {"kind": kind, "gamma": 0.8, "hidden": [32]} | exploring
    section = sections.Agent(kind="agent", algorithm=algorithm, copies=32)
    info = DatasetInfo(0, None, ("request",), extra={"observation_size": 4, "actions": 2})
    agent = Agent.load(section, LearnerContext(info))
    flat = FlatParameters(dict(agent.algorithm.named_parameters()), "fp32", torch.device("cpu"))
    weights, gradient = flat.trained.data, flat.gradient
    samples = Chains(256)
    for t in range(1, 9):
        optimizer = FlatOptimizer(ADAMW, weights, gradient)
        shard = agent.experience(agent.encode_client(0, samples, np.arange(256)), t, 0)
        draws = torch.Generator().manual_seed(t)
        rng = np.random.default_rng(t)
        for _ in range(30):
            gradient.zero_()
            agent.loss(agent.draw(shard, rng.choice(256, 64), draws)).backward()
            optimizer.step()
    places = torch.eye(4)[:3]
    with torch.no_grad():
        assert agent.algorithm.act(places, torch.Generator()).tolist() == [1, 1, 1]
        assert _worth(agent.algorithm, places) == pytest.approx(BEST, abs=0.06)


def _worth(algorithm, places):
    """What the algorithm takes going right to be worth, or where it does, what the place is."""
    if isinstance(algorithm, Dqn):
        return algorithm.q(places)[:, 1].tolist()
    if isinstance(algorithm, Ppo):
        return algorithm.value(places)[:, 0].tolist()
    return torch.minimum(*(critic(places) for critic in algorithm.critics))[:, 1].tolist()
