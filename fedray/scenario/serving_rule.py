"""Rules to beat: fixed ways to choose who serves a request."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Refused
from fedray.scenario.kinds import KindSection, OpenKind


class ServingRuleSection(KindSection):
    """What every rule's section has."""

    kind: str = Field(description="The rule.")

    needs_providers: ClassVar[bool] = False  # whether it looks at providers, which not all environments have

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        environment = getattr(scenario.data, "environment", None)
        if self.needs_providers and not getattr(environment, "has_providers", False):
            kind = scenario.data.kind if environment is None else environment.kind
            expected = "random or round_robin: no providers are known there"
            yield Refused(".kind", f"{self.kind} in {kind}", expected)


class Random(ServingRuleSection):
    """Any action, at random."""

    kind: Literal["random"] = Field(description="random: any action.")

    implementation: ClassVar[str] = "fedray.serving.rules:Random"


class RoundRobin(ServingRuleSection):
    """One provider after the other, with the middle one of the numbers of steps."""

    kind: Literal["round_robin"] = Field(description="round_robin: one provider after the other.")

    implementation: ClassVar[str] = "fedray.serving.rules:RoundRobin"


class MostFree(ServingRuleSection):
    """The provider that can begin first, with the middle one of the numbers of steps."""

    kind: Literal["most_free"] = Field(description="most_free: the provider that can begin first.")

    implementation: ClassVar[str] = "fedray.serving.rules:MostFree"
    needs_providers: ClassVar[bool] = True


class NearestWithModel(ServingRuleSection):
    """Of the providers that have the model, the one whose answer can begin to come first; with the middle one
    of the numbers of steps."""

    kind: Literal["nearest_with_model"] = Field(
        description="nearest_with_model: of those that have the model, the one whose answer begins first."
    )

    implementation: ClassVar[str] = "fedray.serving.rules:NearestWithModel"
    needs_providers: ClassVar[bool] = True


class Greedy(ServingRuleSection):
    """The action that would earn most now, were all that is hidden as on average."""

    kind: Literal["greedy"] = Field(description="greedy: what would earn most, by averages.")

    implementation: ClassVar[str] = "fedray.serving.rules:Greedy"
    needs_providers: ClassVar[bool] = True


class Prophet(ServingRuleSection):
    """The action that earns most now, by all that is hidden; it does not look ahead."""

    kind: Literal["prophet"] = Field(description="prophet: what earns most, knowing all that is hidden.")

    implementation: ClassVar[str] = "fedray.serving.rules:Prophet"
    needs_providers: ClassVar[bool] = True


OwnRule = Random | RoundRobin | MostFree | NearestWithModel | Greedy | Prophet
AnyServingRule = Annotated[OwnRule, Discriminator("kind"), OpenKind("serving_rule", plain=True)]
