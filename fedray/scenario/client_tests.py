"""`evaluation.clients`: each client's own model, on its own distribution."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count, Refused, Section


class ClientTests(Section):
    """Each client tests the model that it would use, on samples of its own distribution that it does not
    train on: the global model as it is sent, with what stays at home (`tuning.local`), its personal model
    (`personal`), or in gossip its own. A line a client goes into client_tests.jsonl; mean and spread over
    clients into the metrics `eval_clients_*`. Clients that attack are not tested. Tests take no simulated
    time."""

    source: Literal["own", "test_set"] = Field(
        default="own",
        description="Where a client's test samples are from. own: a share of its own samples, drawn once, "
        "on which nobody trains (as in PFLlib). test_set: samples of the data's test set, in the client's "
        "own mix of labels, as many as there are of its scarcest label.",
    )
    share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Of a client's samples, that are held out for its test. None: data.holdout, or 0.25.",
    )
    clients: Count | None = Field(
        default=None, description="How many clients are tested, drawn once. None: all."
    )

    cites: ClassVar[tuple[str, ...]] = ("zhang2023pfllib",)

    @property
    def held_out_share(self) -> float:
        """Of each client's own samples, that it does not train on."""
        if self.source == "test_set":
            return 0.0
        return 0.25 if self.share is None else self.share

    def tested(self, seed: int, clients: int) -> list[int]:
        """Which clients are tested, of so many."""
        if self.clients is None:
            return list(range(clients))
        from fedray.randomness import SERVER, generator

        drawn = generator(seed, 0, SERVER, "tested clients").choice(clients, self.clients, replace=False)
        return sorted(drawn.tolist())

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        key = "evaluation.clients"
        if self.source == "test_set":
            if self.share is not None:
                got = f"{self.share:g} for source test_set"
                yield Refused(f"{key}.share", got, "source own, of whose samples a share is held out")
            if scenario.sites or not scenario.data.has_test_set:
                got = f"test_set for {scenario.data.kind}{' at sites' if scenario.sites else ''}"
                yield Refused(f"{key}.source", got, "own, or data with a test set")
        elif self.share is not None and scenario.data.holdout is not None:
            got = f"{self.share:g} beside data.holdout, {scenario.data.holdout:g}"
            yield Refused(f"{key}.share", got, "none: data.holdout says it")
        elif scenario.data.partition.draws_with_replacement:
            got = "own, beside a partition in which clients draw samples that others may have, too"
            yield Refused(f"{key}.source", got, "test_set, or a partition that deals each sample once")
        clients = scenario.population.clients
        if (self.clients or 0) > clients:
            yield Refused(f"{key}.clients", self.clients, f"at most population.clients, {clients}")
        if scenario.topology.splits_model:
            expected = "topology.kind parallel or relay, where clients have a model"
            yield Refused(key, "one in a split", expected)
        if scenario.data.has_environments:
            expected = "none: evaluation tries an agent in every client's environment"
            yield Refused(key, f"one for {scenario.data.kind}", expected)
