"""`augmentation.tune_first`: the generator is fine-tuned before the first round."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedray.scenario.base import Count, Refused, Section
from fedray.scenario.optimizer import Optimizer
from fedray.scenario.tuning import Tuning

GENERATOR = "generator"  # the folder in a run's folder that the fine-tuning has for its own run
# what a fine-tuning takes over from the scenario that it is in; the rest is as it is by default
KEPT = ("seed", "population", "data", "topology", "network", "runtime")


class TuneFirst(Section):
    """The generator is fine-tuned on the clients' images before the first round: a run of its own in the
    run's folder `generator`. What it costs is where the run's own costs begin. Captions call labels as
    `augmentation.names` does."""

    kind: Literal["federated", "collected"] = Field(
        default="federated",
        description="federated: by the clients, on their own images, over the same network. collected: the "
        "clients send images to the server, which fine-tunes it on them alone. These images leave their "
        "clients.",
    )
    samples: Count | None = Field(
        default=None, description="collected: images that each client sends. None: all that it has."
    )
    rounds: Count = Field(description="Rounds of fine-tuning.")
    local_steps: Count = Field(description="Batches per local update.")
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(description="Samples per batch.")
    optimizer: Optimizer = Field(description="The client's optimizer.")
    tuning: Tuning = Field(description="What of the generator trains and travels.")

    cites: ClassVar[tuple[str, ...]] = ("qiang2024aigc",)

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if scenario.augmentation.at == "client":
            expected = "server or server_broadcast: the fine-tuned generator is at the server"
            yield Refused("augmentation.at", "client with a generator that is tuned first", expected)
        if scenario.sites:
            yield Refused(".kind", f"{self.kind} where data lie at sites", "data without sites")
        if self.samples is not None and not self.collects:
            yield Refused(".samples", f"{self.samples} where images stay with their clients", "none")
        if self.collects and scenario.network.uplink.may_lose:
            expected = "federated, or an uplink without outage_db and harq: all that is sent must arrive"
            yield Refused(".kind", "collected over an uplink that may lose images", expected)
        hidden = [name for name in ("privacy", "secure_aggregation", "adversary") if getattr(scenario, name)]
        if hidden:
            got = f"{self.kind} with {hidden[0]}, which it would not have"
            yield Refused(".kind", got, "a fine-tuning of its own: two scenarios, the second with its model/")

    @property
    def collects(self) -> bool:
        """Whether images leave their clients for it."""
        return self.kind == "collected"

    def of(self, tree: dict[str, Any], slows_devices: bool) -> dict[str, Any]:
        """The scenario of the fine-tuning by the clients, of the whole one's values.

        Args:
            tree: the whole scenario's.
            slows_devices: whether its uplink's allocation needs a deadline, which fits another model.
        """
        augmentation = tree["augmentation"]
        mine = augmentation["tune_first"]
        network = tree["network"] | {"deadline_s": None, "save_energy": False}  # which fit another model
        if slows_devices:
            network["uplink"] = {k: v for k, v in network["uplink"].items() if k != "allocation"}
        population = tree["population"] | {"over_select": 0, "selection": "random", "label_epsilon": None}
        captioned = "caption_names" in tree["data"]  # captions of others are the user's own
        data = tree["data"] | ({"caption_names": augmentation["names"]} if captioned else {})
        training = {name: mine[name] for name in ("rounds", "local_steps", "batch_size", "optimizer")}
        return {name: tree[name] for name in KEPT} | {
            "name": f"{tree['name'][:50]}-{GENERATOR}",
            "network": network,
            "population": population,
            "data": data,
            "model": {"kind": "text_to_image", "base": augmentation["generator"]},
            "tuning": mine["tuning"],
            "training": training | {"precision": augmentation["precision"]},
            "evaluation": {"prompts": []},
        }

    def collected(self, tree: dict[str, Any]) -> dict[str, Any]:
        """The scenario of the fine-tuning by the server alone, on images that have been collected.

        Args:
            tree: the scenario of the fine-tuning by the clients.
        """
        network = tree["network"]
        unused = {"kind": "fixed", "rate_bps": 1.0e9}  # nothing travels
        partition = {
            "kind": "pooled",
            "of": tree["data"]["partition"],
            "clients": tree["population"]["clients"],
            "samples": self.samples,
        }
        return tree | {
            "topology": {"kind": "central"},
            "population": {"clients": 1},
            "data": tree["data"] | {"partition": partition},
            "network": {name: unused for name in ("uplink", "downlink", "sidelink")}
            | {"device": network["server"], "server": network["server"]},
        }
