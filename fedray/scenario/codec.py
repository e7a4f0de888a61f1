"""`model: codec`: images as symbols on the air, by joint source-channel coding."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field

from fedray.scenario.base import Refused
from fedray.scenario.kinds import KindSection, OpenKind
from fedray.scenario.model_section import MOST_WIDE, ModelSection, Resolution

MOST_DB = 60.0  # of a signal-to-noise ratio, up or down: beyond, fp32 has no difference to tell
Decibel = Annotated[float, Field(ge=-MOST_DB, le=MOST_DB, allow_inf_nan=False)]


class CodecChannelSection(KindSection):
    """The channel between a codec's encoder and its decoder."""

    kind: str = Field(description="`module:Class` of a channel of your own, or an installed one's name.")
    snr_db: Decibel | Annotated[list[Decibel], Field(min_length=2, max_length=2)] = Field(
        default=[0.0, 15.0],
        description="The mean signal-to-noise ratio at the receiver, in dB: one number, or the lowest and "
        "the highest, between which each training image draws its own. Encoder and decoder know it.",
    )

    of_uplink: bool = Field(
        default=False,
        description="In a split, take each client's own ratio instead: the mean one of its uplink in the "
        "round, over its share of the band, which path loss, shadowing and power give. Evaluation stays "
        "with snr_db.",
    )

    @property
    def snr_range_db(self) -> tuple[float, float]:
        """The lowest and the highest, which are the same where there is one."""
        if isinstance(self.snr_db, float):
            return self.snr_db, self.snr_db
        return self.snr_db[0], self.snr_db[1]

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        lowest, highest = self.snr_range_db
        if lowest > highest:
            got = f"[{lowest:g}, {highest:g}]"
            yield Refused(".snr_db", got, f"the lowest first, as [{highest:g}, {lowest:g}]")
        if self.of_uplink and not scenario.topology.splits_model:
            got = f"true in a {scenario.topology.kind}, where training sends nothing over the uplink"
            yield Refused(".of_uplink", got, "false, or topology.kind split")


class AwgnSection(CodecChannelSection):
    """Additive white Gaussian noise, without fading."""

    kind: Literal["awgn"] = Field(description="awgn: Gaussian noise alone.")

    implementation: ClassVar[str] = "fedray.learners.codec_channels:Awgn"


class RayleighSection(CodecChannelSection):
    """Slow Rayleigh fading with Gaussian noise: one gain for all symbols of an image, which the receiver
    knows and the sender does not; its square has a mean of 1 (Bourtsoulatze et al. 2019, Sec. II, where
    the receiver does not know it either)."""

    kind: Literal["rayleigh"] = Field(description="rayleigh: slow fading, and Gaussian noise.")

    implementation: ClassVar[str] = "fedray.learners.codec_channels:Rayleigh"


CodecChannel = Annotated[AwgnSection | RayleighSection, Discriminator("kind"), OpenKind("codec_channel")]


class Codec(ModelSection):
    """Deep joint source-channel coding (Bourtsoulatze et al. 2019): an encoder from an image to complex
    symbols of mean power 1, a channel, and a decoder from what is received to the image. No bits, and no
    code: noise becomes distortion, gradually. Each half is a linear map with a small network that learns what
    that leaves; attention over channels (Xu et al. 2022) tells both the signal-to-noise ratio. Its parts
    are encoder and decoder."""

    kind: Literal["codec"] = Field(description="codec: images as symbols on the air.")
    uses: Annotated[float, Field(gt=0, le=0.5)] = Field(
        default=0.125,
        description="Channel uses (complex symbols) for each number of an image, which has width times "
        "height times colours of them: the bandwidth ratio k/n. At most 0.5, where each number has a real "
        "symbol of its own.",
    )
    channel: CodecChannel = Field(description="The channel that it is trained for.")
    task: Literal["pixels"] = Field(
        default="pixels",
        description="What is to survive the channel. pixels: the image, by its mean squared error.",
    )
    start: Literal["linear", "random"] = Field(
        default="linear",
        description="The linear maps. linear: the analog codec in closed form (principal components, their "
        "power, and the estimate of least squared error), of the means and second moments of clients' "
        "pixels, which travel beside the weights and of which the server takes the mean. random: weights "
        "that train.",
    )
    width: Annotated[int, Field(ge=4, le=MOST_WIDE, multiple_of=4)] = Field(
        default=16,
        description="Channels of the decoder's network at the image's size, a multiple of 4; there are twice "
        "as many below.",
    )
    hidden: Annotated[int, Field(ge=1, le=MOST_WIDE)] = Field(
        default=128, description="Numbers of the hidden layer of the encoder's network."
    )
    resolution: Resolution | None = Field(
        default=None,
        description="Width and height of images in pixels, a multiple of 4. None: the data's own.",
    )

    stage_names: ClassVar[str | None] = "fedray.learners.stage_names:of_codec"
    implementation: ClassVar[str] = "fedray.learners.codec:Codec"
    tunable_parts: ClassVar[tuple[str, ...] | None] = ("encoder", "decoder")
    checkpoints_gradients: ClassVar[bool] = False
    transmits: ClassVar[bool] = True
    cites: ClassVar[tuple[str, ...]] = ("bourtsoulatze2019deep", "xu2022wireless")

    def cited(self) -> Iterator[str]:
        yield from super().cited()
        if self.start == "linear":
            yield "lee1976optimal"

    @property
    def follows_uplink(self) -> bool:
        return self.channel.of_uplink

    def conflicts(self, scenario: Any) -> Iterator[Refused]:
        yield from super().conflicts(scenario)
        if self.resolution is not None and self.resolution % 4:
            yield Refused(".resolution", self.resolution, "a multiple of 4")
        topology = scenario.topology
        if topology.splits_model:
            yield from self._split(scenario)
        if self.start == "random":
            return
        expected = "random"
        if topology.hands_model_on:
            got = "linear in a relay, where the moments would be those of the last client alone"
            yield Refused(".start", got, f"{expected}, or topology.kind parallel")
        if scenario.privacy is not None:
            got = f"linear with privacy {scenario.privacy.kind}, which does not cover clients' moments"
            yield Refused(".start", got, expected)

    def _split(self, scenario: Any) -> Iterator[Refused]:
        """What a split cannot be whose cut is the air."""
        split = scenario.split
        if split.cut not in ("auto", "channel"):
            got = f"{split.cut} for a codec"
            yield Refused("topology.cut", got, "channel: between client and server there is the air")
        elif split.tail is None:
            got = "none for a codec, whose loss compares what arrives with the image that was sent"
            yield Refused("topology.tail", got, "loss, so that images stay with their client")
        uplink = scenario.network.uplink
        if not uplink.carries_symbols:
            got = f"{uplink.kind} for a codec in a split: symbols take time by a band, which it has not"
            yield Refused("network.uplink.kind", got, "log_distance or 3gpp, with their bandwidth_hz")
        if split.compression:
            got = f"{split.compression[0].kind} for a codec, whose symbols are no bytes"
            yield Refused("topology.compression", got, "none")
        if split.defence is not None:
            got = f"{split.defence.kind} for a codec, whose symbols get the channel's noise"
            yield Refused("topology.defence", got, "none")
        if self.start == "linear" and split.variant == "vanilla":
            got = "linear for vanilla, where the moments would be those of the last client alone"
            yield Refused("model.start", got, "random, or topology.variant splitfed_v1 or splitfed_v2")
