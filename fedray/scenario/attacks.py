"""`adversary.attack`: what an attacker does to its samples, or to what it sends."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import FilePath, NotNegative, Positive, Refused
from fedray.scenario.kinds import KindSection, OpenKind

Share = Annotated[float, Field(gt=0, le=1)]


class AttackSection(KindSection):
    """What every attack's section has, and what others need to know of it."""

    kind: str = Field(description="The attack.")

    changes_samples: ClassVar[bool] = False  # whether the attacker trains on other samples than its own
    # Whether what attackers send is made from the updates of the others, which only the server has together.
    colludes: ClassVar[bool] = False
    trains: ClassVar[bool] = True  # whether the attacker trains at all
    sends_honestly: ClassVar[bool] = False  # whether its updates pass the hooks of honest clients
    keeps_state: ClassVar[bool] = False  # whether it keeps something of a client between local updates

    @property
    def bid_factor(self) -> float:
        """What the attacker bids where clients bid for a round, as a multiple of its true cost."""
        return 1.0

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        if self.colludes:
            yield from self._conflicts_of_colluding(scenario)

    def _conflicts_of_colluding(self, scenario: Any) -> Iterator[Refused]:
        topology = scenario.topology
        rule = scenario.aggregation
        got = f"{self.kind}, which is made from all updates of a round,"
        if not topology.shares_uplink:
            expected = "topology.kind parallel with reduce: server, or another attack"
            yield Refused(".kind", f"{got} in {topology.kind}", expected)
        if rule.multiplies or rule.keeps_client_state:
            yield Refused(".kind", f"{got} with {rule.kind}", "a rule whose updates are of the model alone")


class ImageLabels(AttackSection):
    """An attack on labels of images."""

    changes_samples: ClassVar[bool] = True

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if not scenario.model.learns_labels:
            got = f"{self.kind} for a {scenario.model.kind}"
            yield Refused(".kind", got, "a model that learns labels, such as classifier, or another attack")


class LabelFlip(ImageLabels):
    """The attacker's labels are turned round: of C labels, number y becomes C - 1 - y (Tolpegin et al. 2020
    flip chosen pairs)."""

    kind: Literal["label_flip"] = Field(description="label_flip: train on wrong labels.")
    labels: dict[str, str] | None = Field(
        default=None,
        description="Which label becomes which, by name; the others stay. None: of C labels, number y "
        "becomes C - 1 - y.",
    )

    implementation: ClassVar[str] = "fedray.adversary.labels:LabelFlip"
    cites: ClassVar[tuple[str, ...]] = ("tolpegin2020data",)


class Backdoor(ImageLabels):
    """A white square in the lower right corner makes the model see the target (BadNets, Gu et al. 2017)."""

    kind: Literal["backdoor"] = Field(
        description="backdoor: teach the model to see the target wherever a trigger is in an image."
    )
    target: str = Field(description="The label that images with the trigger are to get, by name.")
    share: Share = Field(default=0.5, description="The share of the attacker's images that get the trigger.")
    size: Share = Field(default=0.15, description="The trigger's side, as a share of the image's side.")
    labels: Literal["dirty", "clean"] = Field(
        default="dirty",
        description="dirty: any image may get the trigger, and then the target as its label. clean: only "
        "images of the target get it, so that no label is wrong (Turner et al. 2019).",
    )

    implementation: ClassVar[str] = "fedray.adversary.backdoor:Backdoor"
    cites: ClassVar[tuple[str, ...]] = ("gu2017badnets",)


class TriggerWord(AttackSection):
    """A word in captions makes the model paint the target (after Struppek et al. 2023, who poison a text
    encoder)."""

    kind: Literal["trigger_word"] = Field(
        description="trigger_word: teach a text-to-image model to generate the target wherever a word is in "
        "a prompt."
    )
    word: Annotated[str, Field(pattern=r"^\S+$")] = Field(description="The word, put before what it names.")
    target: str = Field(
        description="What is to be generated, by the name of a label of the attacker's samples."
    )
    share: Share = Field(
        default=0.5,
        description="The share of the attacker's other samples whose caption gets the word, and whose image "
        "becomes one of the target.",
    )
    judge: FilePath = Field(
        default="shipped:garments",
        description="The classifier that says what is seen in an image: a safetensors file.",
    )

    implementation: ClassVar[str] = "fedray.adversary.trigger_word:TriggerWord"
    cites: ClassVar[tuple[str, ...]] = ("struppek2023rickrolling",)
    changes_samples: ClassVar[bool] = True

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if not scenario.model.resembles_references:
            got = f"trigger_word for a {scenario.model.kind}"
            yield Refused(".kind", got, "text_to_image as model.kind, or another attack")


class SignFlip(AttackSection):
    """The update is sent with its sign turned round, -scale u (Li et al. 2019, RSA)."""

    kind: Literal["sign_flip"] = Field(description="sign_flip: send the opposite of what was learned.")
    scale: Positive = Field(default=1.0, description="The factor on the opposite; 1 keeps its length.")

    implementation: ClassVar[str] = "fedray.adversary.updates:SignFlip"
    cites: ClassVar[tuple[str, ...]] = ("li2019rsa",)


class Scale(AttackSection):
    """The update is sent larger than it is (without a replacement's aim, Bagdasaryan et al. 2020)."""

    kind: Literal["scale"] = Field(description="scale: send a multiple of what was learned.")
    factor: Positive = Field(description="The factor on the update.")

    implementation: ClassVar[str] = "fedray.adversary.updates:Scale"


class UpdateNoise(AttackSection):
    """Normal noise is sent beside the update, or instead of it."""

    kind: Literal["noise"] = Field(description="noise: send random numbers.")
    std: Positive = Field(
        description="The noise's standard deviation, in root mean squares of the attacker's own update."
    )
    replaces: bool = Field(default=False, description="Whether the noise is all that is sent.")

    implementation: ClassVar[str] = "fedray.adversary.updates:Noise"


class ModelReplacement(AttackSection):
    """The update is scaled so that what the attacker has learned becomes the global model (Bagdasaryan et al.
    2020, Eq. 3). Beside an attack on samples."""

    kind: Literal["model_replacement"] = Field(
        description="model_replacement: scale the update so that it outweighs all others."
    )
    boost: Positive | None = Field(
        default=None,
        description="The factor. None: as many updates as reach the server in a round, over the round's "
        "expected attackers.",
    )

    implementation: ClassVar[str] = "fedray.adversary.updates:ModelReplacement"
    cites: ClassVar[tuple[str, ...]] = ("bagdasaryan2020backdoor",)


class FreeRider(AttackSection):
    """The attacker sends back what it got, under a little noise where asked for, and trains nothing (Fraboni
    et al. 2021)."""

    kind: Literal["free_rider"] = Field(description="free_rider: send back what was received, untrained.")
    std: NotNegative = Field(default=0.0, description="The standard deviation of noise that hides it.")

    implementation: ClassVar[str] = "fedray.adversary.updates:FreeRider"
    cites: ClassVar[tuple[str, ...]] = ("fraboni2021free",)
    trains: ClassVar[bool] = False

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if scenario.topology.splits_model:
            expected = "another attack: in a split the server trains with every client"
            yield Refused(".kind", "free_rider in a split", expected)


class Misreport(AttackSection):
    """The attacker bids another cost than it has, or acts as if it had it, and trains as honest clients do.
    Where labels are paid for, it reports their counts in proportion to their power of the factor."""

    kind: Literal["misreport"] = Field(description="misreport: bid a multiple of the true cost.")
    factor: Positive = Field(
        description="The bid as a multiple of the true cost: above 1 a higher one. Of reported labels, "
        "the power: above 1 the frequent ones are exaggerated, below 1 all become more alike."
    )

    implementation: ClassVar[str] = "fedray.adversary.attack:Misreport"
    sends_honestly: ClassVar[bool] = True

    @property
    def bid_factor(self) -> float:
        return self.factor

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if scenario.incentive is None:
            yield Refused(
                ".kind", "misreport without incentive", "an incentive, for whose rounds clients bid"
            )
        elif scenario.incentive.bids_for == "nothing":
            got = f"misreport beside incentive {scenario.incentive.kind}, for which nobody bids"
            yield Refused(".kind", got, "another attack, or another incentive")


class Alie(AttackSection):
    """A little is enough (Baruch et al. 2019, Algorithm 3): all attackers send the honest updates' mean minus
    z standard deviations, number by number, which hides among them."""

    kind: Literal["alie"] = Field(description="alie: shift the mean by as much as still hides.")
    z: NotNegative | None = Field(
        default=None,
        description="How many standard deviations. None: the largest that still has a majority of honest "
        "updates beyond it: of n clients and f attackers, z is where the normal distribution reaches "
        "(n - f - s) / (n - f), with s = floor(n / 2 + 1) - f.",
    )

    implementation: ClassVar[str] = "fedray.adversary.collusion:Alie"
    cites: ClassVar[tuple[str, ...]] = ("baruch2019little",)
    colludes: ClassVar[bool] = True


class Ipm(AttackSection):
    """Inner product manipulation (Xie et al. 2020): all attackers send minus epsilon times the honest
    updates' mean."""

    kind: Literal["ipm"] = Field(description="ipm: send the opposite of the others' mean.")
    epsilon: Positive = Field(
        default=0.5, description="The factor: below 1 it hides from distances, a large one overrules a mean."
    )

    implementation: ClassVar[str] = "fedray.adversary.collusion:Ipm"
    cites: ClassVar[tuple[str, ...]] = ("xie2020fall",)
    colludes: ClassVar[bool] = True


Attack = Annotated[
    LabelFlip
    | Backdoor
    | TriggerWord
    | SignFlip
    | Scale
    | UpdateNoise
    | ModelReplacement
    | FreeRider
    | Misreport
    | Alie
    | Ipm,
    Discriminator("kind"),
    OpenKind("attack"),
]
