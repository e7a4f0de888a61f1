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
# tiny-sd

A small but whole Stable Diffusion: autoencoder, conditional U-Net, CLIP text encoder, tokenizer and scheduler, in fp16
on disk, 32 x 32 pixels. `StableDiffusionPipeline.from_pretrained` loads it. It knows the ten garments of Fashion-MNIST
as "a photo of a sneaker", "a poster of a sneaker in red on cream" and "a sketch of a sneaker in black on white"; ink is
held out, for federated fine-tuning to teach. It is for trying fedray out, not for making pictures.

| | |
| --- | --- |
| trained by | `{command}`, seed {seed}, torch {torch} |
| data | Fashion-MNIST (Zalando SE, MIT licence), {images:,} training garments, sha256 of the images {data_sha256} |
| autoencoder | {vae:,} parameters, {ae_steps:,} steps of {ae_batch}, {ae_seconds} s, mean absolute error {ae_l1} of 0..1 |
| text encoder and U-Net | {text_encoder:,} and {unet:,} parameters, {steps:,} steps of {batch}, {seconds} s on two CPU cores |
| loss | {losses} |
{measured}
"""


def write(folder: Path) -> None:
    card = json.loads((folder / "training.json").read_text())
    ae, denoiser = card["autoencoder"], card["denoiser"]
    curve = list(denoiser["loss"].items())
    measured = [
        f"| recognised | {m['photos_recognised']:.1%} of {m['of']} garments prompted as photos (guidance {m['guidance_scale']:g}, "
        f"{m['inference_steps']} steps), by a classifier trained on the real training set, 91.9% right on the real test set |"
        for key, m in card.items()
        if key.startswith("measured")
    ]
    text = TEXT.format(
        **{k: card[k] for k in ("command", "seed", "torch", "images", "data_sha256")},
        **card["parameters"],
        ae_steps=ae["steps"],
        ae_batch=ae["batch"],
        ae_seconds=ae["seconds"],
        ae_l1=ae["l1_of_0_to_1"],
        steps=denoiser["steps"],
        batch=denoiser["batch"],
        seconds=denoiser["seconds"],
        losses=", ".join(f"{v} at {k}" for k, v in curve[:: max(1, len(curve) // 5)] + curve[-1:]),
        measured="\n".join(measured),
    )
    (folder / "README.md").write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
