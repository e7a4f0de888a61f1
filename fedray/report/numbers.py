"""The report's numbers: what each metric is called, what it means, how sure it is, and all of them to
copy."""

import csv
import io
from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any

from fedray.report.recorded import Recorded

NAMES = {
    "loss": "training loss",
    "augmented_loss": "the augmented model's loss",
    "kappa_2": "kappa_2, the augmented model's weight",
    "update_cosine": "mean cosine of updates",
    "paid": "paid to clients",
    "social_cost": "the winners' true costs",
    "misreport_gain": "gained by misreports",
    "eval_accuracy": "test accuracy",
    "eval_loss": "test loss",
    "eval_exact_match": "exact answers",
    "eval_clients_accuracy": "clients' own test accuracy",
    "eval_clients_loss": "clients' own test loss",
    "eval_holdout_accuracy": "accuracy on held-out samples",
    "eval_holdout_loss": "loss on held-out samples",
    "eval_reward": "reward a request",
    "eval_quality": "quality a request",
    "eval_latency_s": "latency in seconds",
    "eval_in_time": "served in time",
    "eval_energy_j": "joules a request",
    "eval_hit": "model was there",
    "eval_gradient_bound": "gradient bound",
    "eval_gradient_bound_max": "largest gradient bound",
    "eval_classifier_fid": "classifier-FID",
    "eval_kid": "KID",
    "eval_negative_elbo": "negative ELBO",
    "eval_kl": "KL divergence",
    "eval_feature_distance": "feature distance",
    "eval_darkness_distance": "darkness distance",
    "eval_recognised": "images recognised",
    "eval_plain_recognised": "plain prompts recognised",
    "eval_leakage_psnr": "PSNR of pictures rebuilt",
    "eval_leakage_ssim": "SSIM of pictures rebuilt",
    "eval_leakage_labels": "labels recovered",
    "eval_membership_auc": "AUC of membership",
    "eval_membership_tpr": "true positives at 0.1% false ones",
    "eval_psnr": "PSNR of received images",
    "eval_received_ssim": "SSIM of received images",
    "eval_received_recognised": "received images recognised",
}
FLOORS = {  # what a metric's floor is, where it is not what training images score
    "eval_leakage_psnr": "guessing the mean picture",
    "eval_leakage_ssim": "guessing the mean picture",
}
CODEC_PSNR = "eval_psnr_"  # begins the names of a codec's PSNR, which end with a ratio in dB
MEANINGS = {
    "loss": "Mean over the clients of a round of what they minimise. Lower is better.",
    "eval_loss": "The same loss on the test set, which nobody trains on. Lower is better.",
    "eval_accuracy": (
        "Share of the test set that the model labels rightly; of text, share of tokens it predicts."
    ),
    "eval_clients_accuracy": (
        "Share of its own test samples that each client's own model labels rightly: the mean over clients."
    ),
    "eval_clients_loss": "Each client's own model's loss on its own test samples: the mean over clients.",
    "eval_holdout_accuracy": (
        "Share of what is held out of the clients' samples (data.holdout) that the global model labels"
        " rightly: the mean over all these samples."
    ),
    "eval_holdout_loss": (
        "The global model's loss on what is held out of the clients' samples (data.holdout): the mean over"
        " all these samples. Of a model that denoises, under the same noise and timesteps in every round."
        " Lower is better."
    ),
    "eval_reward": (
        "What an agent earns a request, in the reward that its environment gives: the mean over held-out"
        " requests of every client's environment. Dashed lines: what fixed rules earn. Higher is better."
    ),
    "eval_quality": "Mean quality of what the requests got, as the environment judges it. Higher is better.",
    "eval_latency_s": "Mean seconds from a request to its answer.",
    "eval_in_time": "Share of the requests that were answered before their deadline.",
    "eval_hit": "Share of the requests whose provider had their model already.",
    "eval_energy_j": "Mean energy of a request, in joules.",
    "kappa_2": "What the augmented model weighs in the next global model; 0 is the clients' mean alone.",
    "update_cosine": (
        "Mean cosine of all pairs of the clients' updates of a round: 0 are orthogonal ones, 1 are equal"
        " ones."
    ),
    "eval_gradient_bound": (
        "How far a client's gradient can lie from the population's because of its labels, sum over labels of"
        " |p_n - p| times the norm of a label's mean gradient; the mean over clients."
    ),
    "eval_attack_success": (
        "Of test images with the attackers' trigger, or of prompts with their word, the share that gets their"
        " target. Lower is safer."
    ),
    "eval_perplexity": (
        "e to the test loss: between how many tokens the model wavers as if they were equally likely. Lower"
        " is better."
    ),
    "eval_exact_match": (
        "Share of test questions that the model answers exactly as the sample does, each token the likeliest."
        " Higher is better."
    ),
    "eval_feature_distance": (
        "Euclidean distance between the mean features that a judge network sees in generated and in held-out"
        " images: the first term of the Fréchet distance, as its root. 0 is the same style on average."
    ),
    "eval_darkness_distance": (
        "Absolute difference of the mean darkness (1 - luma, Rec. 709) of generated and held-out images: 0 is"
        " as much ink on the page, 1 is black against white."
    ),
    "eval_recognised": "Share of generated images in which a judge network recognises what the prompt names.",
    "eval_plain_recognised": (
        "The same share for plain photo prompts, without the style that was trained: whether the model still"
        " knows what it knew."
    ),
    "eval_prior_feature_distance": (
        "The same distance between images of the class's prompt and the untouched base's own from the same"
        " noise: 0 is a class that stayed as it was."
    ),
    "eval_denoising_loss": (
        "The denoising loss on a folder's images or the test set, under the same noise and timesteps in every"
        " round. Lower is better."
    ),
    "eval_flops_per_image": (
        "Floating-point operations of generating one image, with adapters that are not merged."
    ),
    "eval_added_parameters": "Parameters that stand beside the base's own when images are generated.",
    "eval_classifier_fid": (
        "Fréchet distance between the features of generated and real images, from a small judge network"
        " rather than Inception: not comparable with published FIDs. Lower is better."
    ),
    "eval_kid": (
        "Kernel distance (squared maximum mean discrepancy) between the same features, unbiased, so that it"
        " may fall below 0. Lower is better."
    ),
    "eval_precision": (
        "Share of generated images that lie among the real ones, in the judge's features: are they plausible?"
    ),
    "eval_recall": (
        "Share of real images that lie among the generated ones, in the judge's features: are all kinds"
        " there?"
    ),
    "eval_negative_elbo": (
        "The negative evidence lower bound of test images, in nats an image: what they cost to write down"
        " with this model, at most. It is the reconstruction loss and the KL divergence. Lower is better."
    ),
    "eval_reconstruction_loss": (
        "Minus the log likelihood of test images given latent vectors drawn for them, in nats an image."
    ),
    "eval_kl": (
        "KL divergence of the latent vectors' posterior from the prior, in nats an image: what latent vectors"
        " tell of it. Near 0 they are not used."
    ),
    "eval_active_units": (
        "Latent numbers that are used: the variance of their posterior mean over test images is above 0.01."
    ),
    "eval_leakage_psnr": (
        "How near an attacker's pictures come to those behind an update, in dB (peak signal-to-noise ratio,"
        " 100 at most); the floor is guessing the mean picture. Lower is safer."
    ),
    "eval_leakage_ssim": (
        "The same as structural similarity (Wang et al. 2004): 1 is the same picture. Lower is safer."
    ),
    "eval_leakage_labels": (
        "Share of the labels that an attacker reads off the update of the last layer. Lower is safer."
    ),
    "eval_membership_auc": (
        "How often a sample that was trained on has a lower loss than one that was not (area under the ROC"
        " curve): 0.5 is chance, 1 tells all apart. Lower is safer."
    ),
    "eval_membership_tpr": (
        "Share of the samples trained on that an attacker names who names at most 0.1% of the others; with"
        " fewer than 1,000 others, none of them. Lower is safer."
    ),
    "eval_psnr": (
        "How near received test images come to those that were sent, in dB, over the ratios that the codec is"
        " trained for. Higher is better."
    ),
    "eval_received_ssim": (
        "The same as structural similarity (Wang et al. 2004), the mean over evaluation.transmission's"
        " ratios: 1 is the same picture."
    ),
    "eval_received_recognised": (
        "Share of received test images in which a judge network recognises what they show, the mean over the"
        " same ratios."
    ),
    "eval_distance_correlation": (
        "How much activations that are sent depend on the inputs: 0 not at all, 1 as their mirror image."
    ),
    "eval_reconstruction_error": (
        "Error of an attacker who rebuilds inputs from activations: of images 1 is no better than the mean "
        "picture, of text the share of wrong tokens. Higher is safer."
    ),
}
# Of how many a share is one, by the metric that says so.
OUT_OF = {
    "eval_accuracy": "eval_samples",
    "eval_attack_success": "eval_attack_images",
    "eval_exact_match": "eval_exact_match_samples",
    "eval_leakage_labels": "eval_leakage_images",
    "eval_membership_tpr": "eval_membership_samples",
    "eval_recognised": "eval_images",
    "eval_plain_recognised": "eval_plain_images",
    "eval_precision": "eval_quality_images",
    "eval_recall": "eval_quality_images",
}
SIGNED = ("eval_loss", "eval_reward")  # whose zero is no end of the scale
BESIDE = ("_floor", "_images", "_samples", "_requests")  # endings of metrics that belong to others
OF_ROUNDS = ("kappa_2", "update_cosine")  # drawn as well, beside what evaluations measure
MANY = 10**9  # trials, beyond which an interval is a point
Z = NormalDist().inv_cdf(0.975)  # a 95% interval's standard normal quantile
CSV_ROWS = 1000  # of a run; all are in metrics.jsonl
EMD = (
    "Earth mover's distance between a client's mix of labels and the population's: 0 as everybody, towards 2"
    " alone with a rare label."
)


def name(key: str) -> str:
    """A metric's name for a person: the same in charts, tables and tiles."""
    if key.startswith(CODEC_PSNR):
        return f"PSNR at {key.removeprefix(CODEC_PSNR).removesuffix('db')} dB"
    return NAMES.get(key, key.removeprefix("eval_").replace("_", " "))


def floor_of(key: str) -> str:
    """What a metric's floor is."""
    if key.startswith(CODEC_PSNR):
        return "the linear analog codec"
    return FLOORS.get(key, "the training images")


def is_share(key: str) -> bool:
    return key in OUT_OF or key.endswith(("recognised", "accuracy", "in_time", "_hit"))


def plain(key: str, value: Any) -> str:
    """Four figures are enough for a person; of a share, three of a percentage."""
    if value is None:
        return ""
    if is_share(key):
        return f"{100 * value:.3g}%"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def part_of(value: float, whole: float) -> str:
    """A share of a bar."""
    percent = 100 * value / whole
    return f"{percent:.2g}%" if percent >= 0.01 else "< 0.01%"


def interval(key: str, row: Mapping[str, Any]) -> tuple[int, float, float] | None:
    """Of how many a share is one, and its 95% score interval; none where no such number is recorded."""
    share = row.get(key)
    n = row.get(OUT_OF.get(key, ""))
    if share is None or not n or not 0 <= share <= 1 or not 1 <= n <= MANY:
        return None
    return round(n), *_wilson(round(share * n), round(n))


def _wilson(successes: int, n: int) -> tuple[float, float]:
    """The score interval of Wilson 1927, in the closed form of Newcombe 1998 (method 3). As
    scipy.stats.binomtest has it, whose import would take longer than the rest of a report."""
    share = successes / n
    middle = (2 * n * share + Z**2) / (2 * (n + Z**2))
    half = Z * sqrt(4 * n * share * (1 - share) + Z**2) / (2 * (n + Z**2))
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == n else middle + half
    return low, high


def sureness(key: str, row: Mapping[str, Any]) -> str:
    """The same in words; empty where it is not known."""
    result = interval(key, row)
    return f"n = {result[0]}, 95%: {plain(key, result[1])} to {plain(key, result[2])}" if result else ""


def as_csv(runs: Sequence[Recorded]) -> str:
    """Every recorded metric, a row a round, round 0 the base model; of long runs evenly many."""
    keys = list(
        dict.fromkeys(
            key for run in runs for row in (*run.rows, run.baseline) for key in row if key != "round"
        )
    )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([safe_cell(title) for title in ("run", "round", *keys)])
    for run in runs:
        step = max(1, -(-len(run.rows) // CSV_ROWS))
        base = [{"round": 0, **run.baseline}] if run.baseline else []
        for row in (
            *base,
            *(row for i, row in enumerate(run.rows) if (i + 1) % step == 0 or i == len(run.rows) - 1),
        ):
            writer.writerow([safe_cell(run.name), row["round"], *(row.get(key) for key in keys)])
    return out.getvalue()


def safe_cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def short(value: Any) -> str:
    """Four figures are enough for a person."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
