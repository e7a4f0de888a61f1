"""`data` of kind service: requests in clients' environments."""

from typing import ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count
from fedray.scenario.data_section import DataSection
from fedray.scenario.environment import AnyEnvironment
from fedray.scenario.partition import AnyPartition


class Service(DataSection):
    """Requests that an agent answers, made in each client's environment while it plays. There is nothing but
    their number to be dealt: a client plays as many in a local update as the partition gives it."""

    kind: Literal["service"] = Field(description="service: requests in clients' environments.")
    environment: AnyEnvironment = Field(description="What a client's agent acts in.")
    requests: Count = Field(default=1024, description="Requests that are dealt to clients.")
    held_out: Count = Field(
        default=1024, description="Requests that an agent is evaluated on in each client's environment."
    )
    partition: AnyPartition = Field(description="How many of the requests each client plays.")

    implementation: ClassVar[str] = "fedray.serving.source:ServiceSource"
    called: ClassVar[str] = "requests"
    has_environments: ClassVar[bool] = True
