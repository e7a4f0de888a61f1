"""`data.environment` of a service: what a client's agent acts in."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedray.scenario.kinds import KindSection, OpenKind


class EnvironmentSection(KindSection):
    """What every environment's section has."""

    kind: str = Field(description="The environment.")

    has_providers: ClassVar[bool] = False  # whether rules may look at its providers


class Agod(EnvironmentSection):
    """The environment of Du et al. 2024, as in their code: 20 providers of 400 to 900 denoising steps that run
    at a time; a request for 100 to 250 steps goes to one of them, and earns by that provider's own curve; one
    that does not fit ends all that run there. An episode has about 1000 requests in 10^6 s. An observation has
    each provider's capacity and free share, and the request's steps and run time."""

    kind: Literal["agod"] = Field(description="agod: the environment of Du et al. 2024.")
    shared: bool = Field(
        default=True,
        description="Whether all clients have the same providers. false: each client's are drawn for itself.",
    )

    implementation: ClassVar[str] = "fedray.serving.agod:Agod"
    cites: ClassVar[tuple[str, ...]] = ("du2024diffusion",)
    has_providers: ClassVar[bool] = True


AnyEnvironment = Annotated[Agod, OpenKind("environment")]
