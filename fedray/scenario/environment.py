"""`data.environment` of a service: what a client's agent acts in."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Count, NotNegative, Refused
from fedray.scenario.cache import Cache
from fedray.scenario.kinds import KindSection, OpenKind
from fedray.scenario.providers import Drawn, Exponential, Popularity, PositiveRange, Providers, Quality, Range


class EnvironmentSection(KindSection):
    """What every environment's section has."""

    kind: str = Field(description="The environment.")

    has_providers: ClassVar[bool] = False  # whether rules may look at its providers


class Agod(EnvironmentSection):
    """The environment of Du et al. 2024, as in their code: 20 providers, at each of which tasks of 400 to 900
    denoising steps in all may run. A request for 100 to 250 steps goes to one of them, and earns by that
    provider's own curve; one that does not fit ends all that run there. An episode has about 1000 requests in
    10^6 s. An observation has each provider's capacity and free share, and the request's steps and run
    time."""

    kind: Literal["agod"] = Field(description="agod: the environment of Du et al. 2024.")
    shared: bool = Field(
        default=True,
        description="Whether all clients have the same providers. false: each client's are drawn for itself.",
    )

    implementation: ClassVar[str] = "fedray.serving.agod:Agod"
    cites: ClassVar[tuple[str, ...]] = ("du2024diffusion",)
    has_providers: ClassVar[bool] = True


class Edge(EnvironmentSection):
    """A base station and the providers that it may send a request to. A request names a model, a quality that
    is wanted and a deadline; an action is a provider and a number of denoising steps. It earns the picture's
    quality, or minus the penalty where it is late or not as good as wanted, less the price. Clients are base
    stations: each has its own popular models, request rate and distances, and plays its edge alone. An
    observation has each provider's queue and transfer in seconds, and whether it has the model; and of the
    request its model, wanted quality and deadline."""

    kind: Literal["edge"] = Field(description="edge: providers with queues, caches and prices.")
    models: Annotated[int, Field(ge=1, le=4096)] = Field(default=6, description="Models that are asked for.")
    popularity: Popularity = Field(
        default=Popularity(kind="zipf"), description="How often each model is asked for."
    )
    providers: Providers = Field(default=Drawn(kind="drawn"), description="Who serves requests.")
    shared: bool = Field(
        default=True,
        description="Whether all clients have the same providers. false: each client's are drawn for itself.",
    )
    quality: Quality = Field(
        default=Exponential(kind="exponential"), description="How good a picture is after how many steps."
    )
    steps: Annotated[list[Count], Field(min_length=1, max_length=64)] = Field(
        default=[5, 10, 20, 40], description="The numbers of denoising steps to choose from, in rising order."
    )
    cache: Cache | None = Field(
        default=None,
        description="What providers cache, and how long it takes to fetch what they have not. None: half of "
        "the models each, at random, and the others after a cold start.",
    )
    rate_per_s: PositiveRange = Field(
        default=[0.5, 2.0],
        description="The lowest and highest rate of a client's requests, a second; they are Poisson.",
    )
    wanted_quality: Range = Field(
        default=[0.3, 0.7], description="The lowest and highest quality that is wanted."
    )
    deadline_s: Range = Field(default=[2.0, 8.0], description="The shortest and longest deadline, in s.")
    transfer_s: Range = Field(
        default=[0.05, 1.0], description="The shortest and longest transfer from a provider to a client."
    )
    penalty: NotNegative = Field(
        default=0.5, description="What a request costs that is late or not as good as wanted, in reward."
    )

    implementation: ClassVar[str] = "fedray.serving.edge:Edge"
    has_providers: ClassVar[bool] = True

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.steps != sorted(set(self.steps)):
            yield Refused(".steps", self.steps, "each once, in rising order")
        for i, provider in enumerate(getattr(self.providers, "of", ())):
            for model in provider.models:
                if model >= self.models:
                    got = f"{model}, which nobody asks for"
                    yield Refused(f".providers.of.{i}.models", got, f"models from 0 to {self.models - 1}")


class Gymnasium(EnvironmentSection):
    """An environment of gymnasium, by its name there: one with actions by number, whose observations are
    numbers. A client's copies differ in their draws alone. For one that is registered nowhere, write a
    subclass of `fedray.GymnasiumEnvironment` with `make`, and name it as the kind."""

    kind: Literal["gymnasium"] = Field(description="gymnasium: an environment by its name there.")
    id: Annotated[str, Field(min_length=1)] = Field(description="Its name, such as CartPole-v1.")
    options: dict[str, Any] = Field(default={}, description="What it is made with.")

    implementation: ClassVar[str] = "fedray.serving.gymnasium:Registered"
    cites: ClassVar[tuple[str, ...]] = ("towers2024gymnasium",)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from missing("gymnasium")


class PettingZoo(EnvironmentSection):
    """A parallel environment of PettingZoo, by its module. Each agent's view is one copy, so that all agents
    share the parameters that are learned: their spaces must be alike."""

    kind: Literal["pettingzoo"] = Field(description="pettingzoo: a parallel environment by its module.")
    module: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")] = Field(
        description="The module that has `parallel_env`, such as pettingzoo.butterfly.pistonball_v6."
    )
    options: dict[str, Any] = Field(default={}, description="What it is made with.")

    implementation: ClassVar[str] = "fedray.serving.pettingzoo:OfModule"
    cites: ClassVar[tuple[str, ...]] = ("terry2021pettingzoo",)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from missing("pettingzoo")


def missing(library: str) -> Iterator[Refused]:
    """Where a library that an environment needs is not installed."""
    if find_spec(library) is None:
        yield Refused(".kind", f"{library}, which is not installed", f"pip install {library}")


OwnEnvironment = Agod | Edge | Gymnasium | PettingZoo
AnyEnvironment = Annotated[OwnEnvironment, Discriminator("kind"), OpenKind("environment")]
