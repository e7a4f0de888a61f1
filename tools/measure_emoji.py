"""Measures what a small Stable Diffusion makes of emoji and of garments, and writes it into its training.json.

    uv run python tools/measure_emoji.py --base fedray/shipped/tiny-sd2 --sheet /tmp/tiny-sd2

Its autoencoder gives back pictures that it was not trained on: PSNR of emoji-heldout and of test garments in
every rendering. Asked by name for each emoji it was trained on, how many pictures are nearest to that emoji
(mean square over the pixels, mirrored or not) among all of them: chance is one of 462.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import emoji_pictures
import garments
import model_card
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

STEPS, GUIDANCE, BATCH = 25, 3.0, 66


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", type=Path, required=True)
    p.add_argument("--emoji", type=Path, default=Path("fedray/shipped/emoji"))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--sheet", type=Path, help="pictures to look at are written here: ...-given-back.png, ...-named.png"
    )
    a = p.parse_args()
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(a.base, subfolder="vae").float().eval()
    measured = given_back(vae, a) | named(a)
    card = a.base / "training.json"
    if card.exists():
        card.write_text(
            json.dumps(json.loads(card.read_text()) | {"emoji_measured": measured}, indent=1) + "\n"
        )
        model_card.write(a.base)
    print(json.dumps(measured, indent=1))


def given_back(vae, a) -> dict:
    """PSNR in decibels of the mean square error over all pictures of a kind."""
    kinds = held_out(a.emoji, a.seed)
    result, rows = {}, []
    for kind, pictures in kinds.items():
        again = through(vae, pictures)
        result[kind] = round(psnr(pictures, again), 2)
        rows += [pictures[:16], again[:16]]
    if a.sheet:
        garments.sheet(rows).save(a.sheet.with_name(a.sheet.name + "-given-back.png"))
    return {"psnr_db": result}


def held_out(emoji: Path, seed: int, count: int = 500) -> dict[str, torch.Tensor]:
    pictures, _ = emoji_pictures.load(emoji.with_name(emoji.name + "-heldout"))
    grey, labels, _ = garments.load("test")
    g = torch.Generator().manual_seed(seed)
    kinds = {"emoji-heldout": pictures}
    for rendering in ("photo", "poster", "sketch", "ink"):
        kinds[rendering] = garments.draw(grey[:count], labels[:count], rendering, g)[0]
    return kinds


@torch.no_grad()
def through(vae, pictures: torch.Tensor) -> torch.Tensor:
    """Pictures [N, 3, 32, 32] as the autoencoder gives them back."""
    parts = [vae.decode(vae.encode(x * 2 - 1).latent_dist.mean).sample for x in pictures.split(100)]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1)


def psnr(pictures: torch.Tensor, again: torch.Tensor) -> float:
    return -10 * (pictures - again).square().mean().log10().item()


def named(a) -> dict:
    """How many of the pictures painted by an emoji's name are nearest to that emoji."""
    pictures, captions = emoji_pictures.load(a.emoji)
    pipe = StableDiffusionPipeline.from_pretrained(a.base, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    g, painted = torch.Generator().manual_seed(a.seed), []
    options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "generator": g, "output_type": "pt"}
    for start in range(0, len(captions), BATCH):
        painted.append(pipe(captions[start : start + BATCH], **options).images.float())
        print(f"{start + len(painted[-1])} of {len(captions)} emoji", flush=True)
    images = torch.cat(painted)
    distance = torch.minimum(apart(images, pictures), apart(images, pictures.flip(3)))
    order = distance.argsort(1)
    rank = (order == torch.arange(len(pictures))[:, None]).nonzero()[:, 1]
    if a.sheet:
        chosen = torch.arange(0, len(pictures), len(pictures) // 64)[:64]
        rows = [r for i in chosen.split(16) for r in (pictures[i], images[i])]
        garments.sheet(rows).save(a.sheet.with_name(a.sheet.name + "-named.png"))
    return {
        "of": len(pictures),
        "named_nearest": round((rank == 0).float().mean().item(), 4),
        "named_among_5_nearest": round((rank < 5).float().mean().item(), 4),
        "guidance_scale": GUIDANCE,
        "inference_steps": STEPS,
        "seed": a.seed,
    }


def apart(some: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Mean square difference of each of `some` [N, ...] from each of `others` [M, ...]: [N, M]."""
    return torch.cdist(some.flatten(1), others.flatten(1)).square() / some[0].numel()


if __name__ == "__main__":
    main()
