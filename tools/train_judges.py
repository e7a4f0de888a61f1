"""Trains the two judges of garments that ship with fedray, and lets the photo judge measure tiny-sd.

    uv run python tools/train_judges.py --out fedray/shipped --judge garments-photo uv run python
    tools/train_judges.py --out fedray/shipped --judge garments --autoencoder fedray/shipped/tiny-sd uv run
    python tools/train_judges.py --out fedray/shipped --measure fedray/shipped/tiny-sd

garments-photo knows photos only. garments knows all four renderings, ink too: it is never trained against,
only asked how near an image is to ink and what it shows. A classifier of garments alone learns to overlook
the rendering (in its features photos were as near to ink as ink itself), so a second head, thrown away
afterwards, has it tell them apart. A quarter of its images go through tiny-sd's autoencoder first: what that
blurs is not style. Both learn on Fashion-MNIST's training set, drawn anew each epoch, and are tested on its
test set. Four to six minutes each on one CPU core.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import garments
import model_card
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from fedray.evaluation import judge as judges
from fedray.evaluation import style

RENDERINGS = ["photo", "poster", "sketch", "ink"]
JUDGES = {"garments-photo": ["photo"], "garments": RENDERINGS}
EPOCHS = {"garments-photo": 6, "garments": 5}
BATCH = 128
STYLE_WEIGHT = 0.5  # of the second head's loss beside the first's
PARTS = 4  # of a batch, each with its own rendering and augmentation


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="the judges' folder")
    p.add_argument("--judge", choices=JUDGES, nargs="+", default=list(JUDGES))
    p.add_argument("--epochs", type=int, help=f"otherwise {EPOCHS}")
    p.add_argument(
        "--autoencoder",
        type=Path,
        metavar="BASE",
        help="a Stable Diffusion folder; a quarter of the images pass its autoencoder",
    )
    p.add_argument("--images", type=int, default=60_000, help="training garments, fewer for a trial")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--measure",
        type=Path,
        metavar="BASE",
        help="a Stable Diffusion folder to measure, instead of training",
    )
    p.add_argument(
        "--guidance",
        type=float,
        default=7.5,
        help="of --measure; 7.5 is what a pipeline does when it is not asked",
    )
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.measure:
        return measure(a.measure, a.out / "garments-photo.safetensors", a.seed, a.guidance)
    for name in a.judge:
        train(name, a)


def train(name: str, a: argparse.Namespace) -> None:
    grey, labels, sha = garments.load("train")
    grey, labels = grey[: a.images], labels[: a.images]
    torch.manual_seed(a.seed)
    judge = judges.GarmentJudge(garments.LABELS).to(memory_format=torch.channels_last)
    renderings = JUDGES[name]
    style_head = torch.nn.Linear(judges.FEATURES, len(renderings))  # of a single rendering its loss is 0
    rendering = torch.arange(PARTS).remainder(len(renderings)).repeat_interleave(BATCH // PARTS)
    optimizer = torch.optim.AdamW([*judge.parameters(), *style_head.parameters()], lr=4e-3, weight_decay=0.02)
    epochs = a.epochs or EPOCHS[name]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 4e-3, total_steps=epochs * (len(grey) // BATCH), pct_start=0.2
    )
    g, started = torch.Generator().manual_seed(a.seed + 1), time.time()
    vae = load_autoencoder(a.autoencoder) if a.autoencoder else None
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(grey), generator=g)[: len(grey) // BATCH * BATCH].view(-1, BATCH):
            parts = [
                augmented(grey[part], renderings[k % len(renderings)], g)
                for k, part in enumerate(rows.chunk(PARTS))
            ]
            x = torch.cat(
                [through(vae, x) if vae and torch.rand((), generator=g) < 0.25 else x for x in parts]
            )
            features, logits = judge(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.05)
            loss = loss + STYLE_WEIGHT * F.cross_entropy(style_head(features), rendering)
            loss.backward()
            optimizer.step(), schedule.step(), optimizer.zero_grad()
            total += loss.item()
        print(
            f"{name} epoch {epoch + 1} loss {total / (len(grey) // BATCH):.4f} {time.time() - started:.0f} s",
            flush=True,
        )

    judge.half().float().eval()  # tested with the weights that are stored
    accuracy = tested(judge, a.seed)
    print(f"{name} test accuracy {accuracy}", flush=True)
    weights = {
        k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in judge.state_dict().items()
    }
    # no path of this machine
    command = ["fedray/shipped" if word == str(a.out) else word for word in sys.argv]
    metadata = {
        "labels": json.dumps(garments.LABELS),
        "renderings": json.dumps(renderings),
        "test_accuracy": json.dumps(accuracy),
        "command": "python " + shlex.join(command),
        "data": "Fashion-MNIST, Zalando SE, MIT licence",
        "data_sha256": sha,
        "epochs": str(epochs),
        "torch": torch.__version__,
    }
    a.out.mkdir(parents=True, exist_ok=True)
    path = a.out / f"{name}.safetensors"
    save_file(weights, path, metadata)
    path.chmod(0o644)  # safetensors writes for its owner alone, but this one ships


def augmented(grey: torch.Tensor, rendering: str, g: torch.Generator) -> torch.Tensor:
    """One rendering [N, 3, 32, 32] of garments shifted by up to 2 pixels, a little blurred and noisy half the
    time: the images a judge will see went through an autoencoder."""
    # the padding is 2 wide, so nothing wraps around
    dy, dx = torch.randint(-2, 3, (2,), generator=g).tolist()
    x = render(grey.roll((dy, dx), (1, 2)), rendering, g)
    if torch.rand((), generator=g) < 0.5:
        sigma = 0.3 + 0.4 * torch.rand((), generator=g).item()
        x = garments.blur(x.flatten(0, 1), sigma).view_as(x)
        x = x + 0.05 * torch.rand((), generator=g) * torch.randn(x.shape, generator=g)
    return x.clamp(0, 1)


def load_autoencoder(base: Path):
    from diffusers import AutoencoderKL

    return (
        AutoencoderKL.from_pretrained(base, subfolder="vae", torch_dtype=torch.float32)
        .eval()
        .requires_grad_(False)
    )


@torch.no_grad()
def through(vae, x: torch.Tensor) -> torch.Tensor:
    """Images [N, 3, 32, 32] as the autoencoder gives them back."""
    return (vae.decode(vae.encode(x * 2 - 1).latent_dist.mean).sample / 2 + 0.5).clamp(0, 1)


def render(grey: torch.Tensor, rendering: str, g: torch.Generator) -> torch.Tensor:
    # captions are not needed
    return garments.draw(grey, torch.zeros(len(grey), dtype=torch.long), rendering, g)[0]


def tested(judge: judges.GarmentJudge, seed: int) -> dict[str, float]:
    """Share of the 10,000 test garments recognised, by rendering."""
    grey, labels, _ = garments.load("test")
    g = torch.Generator().manual_seed(seed + 2)
    accuracy = {}
    for rendering in RENDERINGS:
        seen = [judges.look(judge, render(part, rendering, g))[1] for part in grey.split(1000)]
        accuracy[rendering] = round(style.recognised(torch.cat(seen), labels), 4)
    return accuracy


def measure(
    base: Path, judge_path: Path, seed: int, guidance_scale: float, per_class: int = 50, batch: int = 100
) -> None:
    """Share of generated photos that the photo judge recognises, written into BASE/training.json."""
    from diffusers import StableDiffusionPipeline

    inference_steps = 25
    judge = judges.load(judge_path)
    pipe = StableDiffusionPipeline.from_pretrained(base, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    prompts = [garments.caption(label) for label in range(len(judge.labels)) for _ in range(per_class)]
    g, images = torch.Generator().manual_seed(seed), []
    for start in range(0, len(prompts), batch):
        asked = prompts[start : start + batch]
        images.append(
            pipe(
                asked,
                num_inference_steps=inference_steps,
                guidance_scale=guidance_scale,
                generator=g,
                output_type="pt",
            ).images
        )
        print(f"{start + len(asked)} of {len(prompts)} photos", flush=True)
    _, probabilities = judges.look(judge, torch.cat(images))
    labels = style.labels_in(prompts, judge.labels)
    by_label = {
        n: round(style.recognised(probabilities[labels == i], labels[labels == i]), 4)
        for i, n in enumerate(judge.labels)
    }
    measured = {
        "photos_recognised": round(style.recognised(probabilities, labels), 4),
        "of": len(prompts),
        "by_label": by_label,
        "guidance_scale": guidance_scale,
        "inference_steps": inference_steps,
        "seed": seed,
        "judge_sha256": judge.sha256,
    }
    name = "measured" if guidance_scale == 7.5 else f"measured_at_guidance_{guidance_scale:g}"
    card = base / "training.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {name: measured}, indent=1) + "\n")
    model_card.write(base)
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
