"""Writes a shipped model's README.md from the training.json beside it.

uv run python tools/model_card.py fedray/shipped/tiny-sd
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TEXT = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---
# {name}

A small but whole Stable Diffusion: autoencoder, conditional U-Net, CLIP text encoder, tokenizer and scheduler, in fp16
on disk, 32 x 32 pixels. `StableDiffusionPipeline.from_pretrained` loads it. It knows the ten garments of Fashion-MNIST
as "a photo of a sneaker", "a poster of a sneaker in red on cream" and "a sketch of a sneaker in black on white"; ink is
held out, for federated fine-tuning to teach. {emoji}It is for trying fedray out, not for making pictures.

| | |
| --- | --- |
| trained by | `{command}`, seed {seed}, torch {torch} |
| data | Fashion-MNIST (Zalando SE, MIT licence), {images:,} training garments, sha256 of the images {data_sha256} |
{first}| autoencoder | {vae:,} parameters, {ae_steps:,} steps of {ae_batch}, {ae_seconds} s, mean absolute error {ae_l1} of 0..1 |
| text encoder and U-Net | {text_encoder:,} and {unet:,} parameters, {steps:,} steps of {batch}, {seconds} s on {cores} |
| loss | {losses} |
{measured}
"""
EMOJI = """It knows the {pictures} emoji of `shipped:emoji` by name, as
"a picture of a red apple"; those of emoji-heldout and the subjects of emoji-subject it has not seen.
"""
EMOJI_DATA = """| emoji | {package} {version} ({author}, {licence} licence), sha256 of the {pictures} pictures and captions {pictures_sha256} |
"""
FIRST = "| began from | what `{command}` made, {steps:,} steps of {batch}, {seconds} s, loss {loss} |\n"
EMOJI_MEASURED = (
    "| autoencoder, PSNR of pictures it was not trained on | {psnr} |\n"
    "| emoji by name | {named_nearest:.1%} of {of} pictures painted by an emoji's name (guidance {guidance_scale:g}, "
    "{inference_steps} steps) are nearest to that emoji of all {of}, {named_among_5_nearest:.1%} are among its 5 nearest, by mean "
    "square of the pixels |"
)


def write(folder: Path) -> None:
    card = json.loads((folder / "training.json").read_text())
    first = EMOJI_DATA.format(**card["emoji"]) if "emoji" in card else ""
    if "started_from" in card:
        began = card["started_from"]["denoiser"]
        loss = list(began["loss"].values())[-1]
        first += FIRST.format(**began | {"loss": loss, "command": card["started_from"]["command"]})
    ae, denoiser = card["autoencoder"], card["denoiser"]
    curve = list(denoiser["loss"].items())
    measured = [
        f"| recognised | {m['photos_recognised']:.1%} of {m['of']} garments prompted as photos (guidance {m['guidance_scale']:g}, "
        f"{m['inference_steps']} steps), by a classifier trained on the real training set, 91.9% right on the real test set |"
        for key, m in card.items()
        if key.startswith("measured")
    ]
    if "emoji_measured" in card:
        psnr = ", ".join(f"{kind} {db} dB" for kind, db in card["emoji_measured"]["psnr_db"].items())
        measured.append(EMOJI_MEASURED.format(psnr=psnr, **card["emoji_measured"]))
    text = TEXT.format(
        name=folder.name,
        emoji=EMOJI.format(**card["emoji"]) if "emoji" in card else "",
        first=first,
        **{k: card[k] for k in ("command", "seed", "torch", "images", "data_sha256")},
        **card["parameters"],
        ae_steps=ae["steps"],
        ae_batch=ae["batch"],
        ae_seconds=ae["seconds"],
        ae_l1=ae["l1_of_0_to_1"],
        steps=denoiser["steps"],
        batch=denoiser["batch"],
        seconds=denoiser["seconds"],
        cores="one CPU core" if "emoji" in card else "two CPU cores",
        losses=", ".join(f"{v} at {k}" for k, v in curve[:: max(1, len(curve) // 5)] + curve[-1:]),
        measured="\n".join(measured),
    )
    (folder / "README.md").write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
