"""`model` of kind agent: what is learned by acting in an environment."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Count, Fraction, NotNegative, Positive, Refused
from fedray.scenario.kinds import KindSection, OpenKind
from fedray.scenario.model_section import MOST_WIDE, ModelSection
from fedray.scenario.serving_rule import AnyServingRule

Width = Annotated[int, Field(ge=1, le=MOST_WIDE)]
Hidden = Annotated[list[Width], Field(min_length=1, max_length=12)]
Share = Annotated[float, Field(ge=0, le=1)]


class AlgorithmSection(KindSection):
    """How an agent learns."""

    kind: str = Field(description="The algorithm.")


class OwnNetworks(AlgorithmSection):
    """An algorithm of ours, with networks of linear layers."""

    gamma: Fraction = Field(default=0.9, description="The discount of a step's reward against the next's.")
    hidden: Hidden = Field(
        default=[128, 128], description="Numbers of each layer between observation and actions."
    )


class Dqn(OwnNetworks):
    """Deep Q-learning with double targets: the weights that train choose the action behind a step, the
    received ones say what it is worth. With probability epsilon, which falls linearly over rounds, an action
    is drawn at random."""

    kind: Literal["dqn"] = Field(description="dqn: deep Q-learning.")
    n_step: Count = Field(default=1, description="Steps whose rewards count before a value is estimated.")
    epsilon_start: Share = Field(default=0.6, description="The probability in the first round.")
    epsilon_end: Share = Field(default=0.05, description="The probability once it has fallen.")
    epsilon_rounds: Count = Field(default=10, description="After how many rounds it has fallen.")

    implementation: ClassVar[str] = "fedray.learners.agents.dqn:Dqn"
    cites: ClassVar[tuple[str, ...]] = ("mnih2015human", "vanhasselt2016deep", "gallici2025simplifying")

    def epsilon(self, round_number: int) -> float:
        """The probability of an action at random in a round, counted from 1."""
        fallen = min(1.0, (round_number - 1) / self.epsilon_rounds)
        return self.epsilon_start + fallen * (self.epsilon_end - self.epsilon_start)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.epsilon_end > self.epsilon_start:
            expected = f"at most epsilon_start, {self.epsilon_start:g}"
            yield Refused(".epsilon_end", self.epsilon_end, expected)


class Ppo(OwnNetworks):
    """Proximal policy optimisation: a policy and a value network; advantages and the probabilities that new
    ones are held against are those of the received weights."""

    kind: Literal["ppo"] = Field(description="ppo: proximal policy optimisation.")
    gae_lambda: Share = Field(
        default=0.95,
        description="How far ahead advantages look (Schulman et al. 2016): 0 one step, 1 as far as there are "
        "rewards.",
    )
    clip: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2, description="How far an action's probability may move, relative to the received one."
    )
    value_weight: NotNegative = Field(default=0.5, description="The weight of the values' squared error.")
    entropy_weight: NotNegative = Field(default=0.01, description="The weight of the policy's entropy.")

    implementation: ClassVar[str] = "fedray.learners.agents.ppo:Ppo"
    cites: ClassVar[tuple[str, ...]] = ("schulman2017proximal", "schulman2016high")


class Sac(OwnNetworks):
    """Soft actor-critic over discrete actions: a policy, and two critics the lower of which counts."""

    kind: Literal["sac"] = Field(description="sac: soft actor-critic over discrete actions.")
    alpha: Positive = Field(default=0.05, description="The weight of the policy's entropy, in reward.")
    n_step: Count = Field(default=1, description="Steps whose rewards count before a value is estimated.")

    implementation: ClassVar[str] = "fedray.learners.agents.sac:Sac"
    cites: ClassVar[tuple[str, ...]] = ("haarnoja2018soft", "christodoulou2019soft")


class D2Sac(OwnNetworks):
    """Soft actor-critic whose policy a diffusion model denoises out of noise (Du et al. 2024); the defaults
    are theirs."""

    kind: Literal["d2sac"] = Field(description="d2sac: soft actor-critic with a diffusion policy.")
    gamma: Fraction = Field(default=0.95, description="The discount of a step's reward against the next's.")
    hidden: Hidden = Field(
        default=[256, 256], description="Numbers of each layer between observation and actions."
    )
    alpha: Positive = Field(default=0.05, description="The weight of the policy's entropy, in reward.")
    n_step: Count = Field(default=3, description="Steps whose rewards count before a value is estimated.")
    denoising_steps: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=5, description="Denoising steps from noise to the policy."
    )

    implementation: ClassVar[str] = "fedray.learners.agents.d2sac:D2Sac"
    cites: ClassVar[tuple[str, ...]] = ("du2024diffusion", "xiao2022tackling", "christodoulou2019soft")


AnyAlgorithm = Annotated[Dqn | Ppo | Sac | D2Sac, Discriminator("kind"), OpenKind("algorithm", plain=True)]


class Agent(ModelSection):
    """An agent that learns by acting in its client's environment. In a local update it plays as many requests
    as its client has samples, with the weights that it has received, and trains on what came of that. Nothing
    of it outlives the local update, or leaves the client, but the weights. It has one part, network."""

    kind: Literal["agent"] = Field(description="agent: learns by acting in an environment.")
    algorithm: AnyAlgorithm = Field(description="How it learns: a mapping, or a kind's name alone.")
    copies: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=16,
        description="Copies of an environment that are played side by side, each of them a part of the "
        "requests.",
    )
    evaluated_clients: Count | None = Field(
        default=None,
        description="In how many clients' environments it is evaluated, from client 0 on; more than "
        "population.clients: at places too where nobody trains. None: in every client's.",
    )

    rules: list[AnyServingRule] = Field(
        default=[],
        description="Rules to beat, measured beside it at the same requests: mappings, or kinds' names.",
    )

    implementation: ClassVar[str] = "fedray.learners.agent:Agent"
    hub_task: ClassVar[str | None] = "reinforcement-learning"
    tunable_parts: ClassVar[tuple[str, ...] | None] = ("network",)
    checkpoints_gradients: ClassVar[bool] = False
    cites: ClassVar[tuple[str, ...]] = ("jin2022federated",)
    acts: ClassVar[bool] = True

    @property
    def rule_names(self) -> list[str]:
        """What each of the rules is called in the metrics."""
        return [rule.kind.rpartition(":")[2] for rule in self.rules]

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if scenario.topology.splits_model:
            got = f"{scenario.topology.kind} for an agent, which acts with its whole network"
            yield Refused("topology.kind", got, "parallel or relay")
        names = self.rule_names
        if len(set(names)) < len(names):
            yield Refused(".rules", ", ".join(names), "each rule once")
