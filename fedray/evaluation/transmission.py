"""`evaluation.transmission`: held-out images over a codec's channel, beside other ways to send them."""

import json
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedray import shipped
from fedray.evaluation import image_codes, style
from fedray.evaluation import judge as judges
from fedray.evaluation.evaluation import Evaluation
from fedray.evaluation.similarity import psnr, ssim
from fedray.evaluation.transmission_chart import write_chart
from fedray.files import write_whole
from fedray.learners.codec import Codec, Transmission
from fedray.learners.codec_channels import transmitted
from fedray.learners.codec_linear import LinearCodec, capacity, gaussian_distortions
from fedray.learners.contexts import EvaluationContext
from fedray.learners.learner import Learner
from fedray.learners.sheets import write_sheet
from fedray.randomness import SERVER, key
from fedray.scenario.base import Refused

CODEC = "codec"
AT_ONCE = 250  # images sent in one go
SHOWN = 10  # images on a sheet
SHOWN_DB = (-5.0, 5.0, 15.0)
SEED_BITS = 32
SSIM_SIDE = 11  # pixels that a picture needs for its SSIM

Row = dict[str, float]


@dataclass
class Sent:
    """Held-out images on their way.

    Attributes:
        images: [n, c, h, w] in 0..1.
        mean: what a receiver shows that nothing reached [c, h, w].
        seed: the scenario's.
    """

    images: Tensor
    mean: Tensor
    seed: int

    def batch(self, codec: Codec, snr_db: float) -> Transmission:
        """With the draws of the channel, which are the same in every round and for every way."""
        n = len(self.images)
        draws = torch.Generator().manual_seed(key(self.seed, 0, SERVER, f"transmission {snr_db:g} dB"))
        gain = codec.channel.gains(n, draws)
        noise = torch.randn(n, 2 * codec.uses, generator=draws)
        return Transmission(self.images, torch.full((n,), snr_db), gain, noise)

    def outage(self, batch: Transmission, arrived: Tensor) -> Tensor:
        """What arrives of a code that is made for the mean ratio: nothing of an image whose channel is worse
        than that."""
        reached = (batch.gain >= 1)[:, None, None, None]
        return torch.where(reached, arrived, self.mean.expand_as(arrived))


class Transmissions(Evaluation):
    """PSNR and SSIM by images' own means over the test set, and the share that the judge recognises."""

    def verify(self, context: EvaluationContext, downloaded: bool) -> None:
        judge = judges.open_judge(self.section.judge, context.folder, "evaluation.transmission.judge")
        if not context.dataset.has_test_set:
            got = "data without a test set"
            raise Refused("evaluation.transmission", got, "data with held-out images, or none")
        unknown = [name for name in context.dataset.info.label_names if name not in judge.labels]
        if unknown:
            expected = f"a judge that knows {unknown[0]}, one of the data's labels"
            raise Refused("evaluation.transmission.judge", self.section.judge, expected)

    def measure(self, learner: Learner, context: EvaluationContext) -> dict[str, float]:
        """Metrics of the codec, with the linear analog one as floor; files beside the context's sheet."""
        assert isinstance(learner, Codec), "refused by its section otherwise"
        test_set = context.test_set()
        assert test_set is not None, "refused by verify otherwise"
        samples, indices = test_set
        shard = learner.encode(samples, indices)
        images = shard.images.cpu().float() / 255
        with learner.evaluating():
            # what a receiver knows of images in general, where it knows it
            linear = learner.linear if learner.section.start == "linear" else None
        grey = torch.full(images.shape[1:], 0.5)
        mean = grey if linear is None else linear.mean.cpu().clamp(0, 1).view(images.shape[1:])
        sent = Sent(images, mean, context.seed)
        judge = judges.load(shipped.resolve(self.section.judge, context.folder))
        names = samples.label_names
        labels = torch.tensor([judge.labels.index(names[k]) for k in samples.labels[indices]])
        table = {CODEC: self._rows(self._by_codec(learner, sent), sent, judge, labels)}
        for way in self.section.beside:
            arrived = self._by_other(way, learner, linear, sent)
            if arrived is not None:
                table[way] = self._rows(arrived, sent, judge, labels)
        prompt = self._prompts(learner, sent) if "prompt" in self.section.beside else {}
        self._write(context, table, prompt, learner, sent)
        return self._metrics(table)

    def _by_codec(self, learner: Codec, sent: Sent) -> dict[float, Tensor]:
        return {snr_db: _through(learner, sent.batch(learner, snr_db)) for snr_db in self.section.snr_db}

    def _by_other(
        self, way: str, learner: Codec, linear: LinearCodec | None, sent: Sent
    ) -> dict[float, Tensor] | None:
        """What arrives by another way, at each ratio; None for one that has no images, or is not known.

        Args:
            way: one of the section's `beside`.
            learner: whose channel.
            linear: the linear analog codec.
            sent: the images.
        """
        if way == "prompt" or (linear is None and way in ("linear", "bound")):
            return None
        ratios = self.section.snr_db
        batches = {snr_db: sent.batch(learner, snr_db) for snr_db in ratios}
        if way == "linear":
            assert linear is not None
            return {snr_db: by_linear(linear, batch) for snr_db, batch in batches.items()}
        budgets = [learner.uses * capacity(snr_db) for snr_db in ratios]
        if way == "bound":
            assert linear is not None
            made = [by_gaussian_code(linear, bits, sent) for bits in budgets]
        else:
            made = image_codes.coded(sent.images, way.upper(), budgets, sent.mean)
        return {
            snr_db: sent.outage(batches[snr_db], images) for snr_db, images in zip(ratios, made, strict=True)
        }

    def _rows(
        self, arrived: dict[float, Tensor], sent: Sent, judge: judges.GarmentJudge, labels: Tensor
    ) -> dict[float, Row]:
        """Means over what arrived, by ratio.

        Args:
            arrived: images [n, c, h, w] in 0..1, by ratio.
            sent: the originals.
            judge: looks at them.
            labels: of the judge's, that they have [n].
        """
        rows = {}
        for snr_db, images in arrived.items():
            seen = judges.resized(images.expand(-1, 3, -1, -1))
            row = {"psnr": float(psnr(images, sent.images).mean())}
            if images.shape[-1] >= SSIM_SIDE:
                row["ssim"] = float(ssim(images, sent.images).mean())
            row["recognised"] = style.recognised(judges.look(judge, seen)[1], labels)
            rows[snr_db] = row
        return rows

    def _prompts(self, learner: Codec, sent: Sent) -> dict[float, Row]:
        """Of a label and a seed: how many channel uses they need without fading, and the share of images that
        is recognised in what tiny-sd paints of them, from its card, where they arrive in the codec's uses."""
        card = json.loads((shipped.HERE / "tiny-sd" / "training.json").read_text())
        painted = float(card["measured"]["photos_recognised"])
        labels = max(2, len(learner.context.dataset.label_names))
        bits = math.ceil(math.log2(labels)) + SEED_BITS
        rows = {}
        for snr_db in self.section.snr_db:
            now_db = snr_db + 20 * sent.batch(learner, snr_db).gain.clamp(min=1e-6).log10()
            arrives = sum(learner.uses * capacity(one) >= bits for one in now_db.tolist()) / len(now_db)
            rows[snr_db] = {
                "uses": float(math.ceil(bits / capacity(snr_db))),
                "recognised": arrives * painted + (1 - arrives) / labels,
            }
        return rows

    def _metrics(self, table: dict[str, dict[float, Row]]) -> dict[str, float]:
        metrics = {}
        for snr_db, row in table[CODEC].items():
            metrics[f"eval_psnr_{snr_db:g}db"] = row["psnr"]
            if "linear" in table:
                metrics[f"eval_psnr_{snr_db:g}db_floor"] = table["linear"][snr_db]["psnr"]
        rows = list(table[CODEC].values())
        if "ssim" in rows[0]:
            metrics["eval_received_ssim"] = sum(row["ssim"] for row in rows) / len(rows)
        metrics["eval_received_recognised"] = sum(row["recognised"] for row in rows) / len(rows)
        return {name: round(value, 4) for name, value in metrics.items()}

    def _write(
        self,
        context: EvaluationContext,
        table: dict[str, dict[float, Row]],
        prompt: dict[float, Row],
        learner: Codec,
        sent: Sent,
    ) -> None:
        """The numbers, their chart, and a sheet of images as they arrive.

        Args:
            context: says where.
            table: by way and ratio.
            prompt: of the prompt as message, by ratio.
            learner: the codec.
            sent: the images.
        """
        folder = context.sheet.parent
        folder.mkdir(parents=True, exist_ok=True)
        number = context.sheet.stem.removeprefix("round-")
        everything = table | ({"prompt": prompt} if prompt else {})
        named = {way: {f"{snr:g}": row for snr, row in rows.items()} for way, rows in everything.items()}
        text = json.dumps({"channel_uses": learner.uses, "ways": named}, indent=2)
        write_whole(folder / f"transmission-{number}.json", text + "\n")
        write_chart(everything, context.sheet, learner.section.channel)
        some = Sent(sent.images[:SHOWN], sent.mean, sent.seed)
        arrived = [_through(learner, some.batch(learner, snr_db)) for snr_db in SHOWN_DB]
        sheet = torch.cat([some.images, *arrived]).expand(-1, 3, -1, -1)
        write_sheet(sheet, len(some.images), folder / f"reconstructions-{number}.png")


def _through(learner: Codec, batch: Transmission) -> Tensor:
    """Images as the codec's receiver has them, on the CPU."""
    made = []
    for start in range(0, len(batch.images), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        parts = (batch.images, batch.snr_db, batch.gain, batch.noise)
        made.append(learner.transmit(Transmission(*(part[some].to(learner.device) for part in parts))).cpu())
    return torch.cat(made)


def by_linear(linear: LinearCodec, batch: Transmission) -> Tensor:
    """Images [n, c, h, w] in 0..1 as the linear analog codec's receiver has them, on the CPU."""
    images = batch.images.to(linear.mean.device)
    snr_db, gain, noise = (t.to(images.device) for t in (batch.snr_db, batch.gain, batch.noise))
    received = transmitted(linear.encode(images.flatten(1), snr_db), gain, snr_db, noise)
    return linear.decode(received, snr_db, gain).clamp(0, 1).view_as(images).cpu()


def by_gaussian_code(linear: LinearCodec, bits: float, sent: Sent) -> Tensor:
    """Images as an ideal code of so many bits would have them, were they Gaussian: each component with the
    error of reverse water-filling, by the channel that attains it (Cover and Thomas 2006, Fig. 10.5)."""
    variances = linear.variances.cpu().double()
    distortions = gaussian_distortions(variances, bits)
    vectors = linear.all_components.cpu().double()
    coefficients = (sent.images.flatten(1).double() - linear.mean.cpu()) @ vectors
    kept = 1 - distortions / variances
    draws = torch.Generator().manual_seed(key(sent.seed, 0, SERVER, "Gaussian code"))
    noise = torch.randn(coefficients.shape, generator=draws, dtype=torch.float64)
    coded = kept * coefficients + (distortions * kept).sqrt() * noise
    images = linear.mean.cpu() + coded @ vectors.T
    return images.clamp(0, 1).float().view_as(sent.images)
