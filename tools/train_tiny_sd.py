"""Trains tiny-sd, the small but whole Stable Diffusion that ships with fedray, and writes its model card.

    uv run python tools/train_tiny_sd.py --out fedray/shipped/tiny-sd

First the autoencoder on garments in every colour, then the text encoder and the U-Net together on captioned
photos, posters and sketches. Ink is held out: it is what the case study teaches. About 45 minutes on two CPU
cores; give a GPU by --device cuda. The judges (tools/train_judges.py) measure the result and add their lines
to the card.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import sys
import time
from pathlib import Path

import garments
import model_card
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import EMAModel, compute_snr
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

STYLES = {"photo": 0.4, "poster": 0.3, "sketch": 0.3}
MAX_TOKENS = 32


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cpu")
    p.add_argument("--autoencoder-steps", type=int, default=1400)
    p.add_argument("--steps", type=int, default=4000)
    p.add_argument("--batch", type=int, default=64)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    grey, labels, sha = garments.load("train")
    card = {
        "command": "python " + shlex.join(sys.argv),
        "seed": a.seed,
        "images": len(grey),
        "data_sha256": sha,
    }
    card["torch"] = torch.__version__

    scratch = a.out.with_name(a.out.name + "-work")
    if (scratch / "vae").exists():  # a broken run goes on behind its autoencoder
        vae = AutoencoderKL.from_pretrained(scratch, subfolder="vae").to(a.device)
        card["autoencoder"] = json.loads((scratch / "autoencoder.json").read_text())
    else:
        vae, card["autoencoder"] = train_autoencoder(grey, labels, a)
        vae.save_pretrained(scratch / "vae")
        (scratch / "autoencoder.json").write_text(json.dumps(card["autoencoder"]))
    latents, captions = encode_all(vae, grey, labels, a)
    tokenizer = make_tokenizer(captions)
    text_encoder, unet, card["denoiser"] = train_denoiser(vae, latents, captions, tokenizer, a, scratch)
    save(vae, text_encoder, tokenizer, unet, a.out, card)


def train_autoencoder(grey, labels, a) -> tuple[AutoencoderKL, dict]:
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=32, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 48), layers_per_block=1,
    ).to(a.device)  # fmt: skip
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=a.autoencoder_steps, pct_start=0.05
    )
    g = torch.Generator().manual_seed(a.seed + 1)
    batch, started, losses = 32, time.time(), []
    for step in range(a.autoencoder_steps):
        x = colourful(grey, labels, batch, g).to(a.device) * 2 - 1
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
        loss = F.l1_loss(y, x) + F.mse_loss(y, x) + 1e-4 * posterior.kl().mean() / x[0].numel() * 32
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step(), schedule.step(), optimizer.zero_grad()
        losses.append(F.l1_loss(y, x).item() / 2)
        if (step + 1) % 100 == 0:
            print(
                f"autoencoder step {step + 1} l1 {sum(losses[-100:]) / 100:.4f}"
                f" {time.time() - started:.0f} s",
                flush=True,
            )
    with torch.no_grad():
        z = vae.encode(colourful(grey, labels, 1000, g).to(a.device) * 2 - 1).latent_dist.sample()
    vae.register_to_config(scaling_factor=round(1 / z.std().item(), 5))
    vae.requires_grad_(False).eval()
    facts = {"steps": a.autoencoder_steps, "batch": batch, "l1_of_0_to_1": round(sum(losses[-100:]) / 100, 4)}
    return vae, facts | {"seconds": round(time.time() - started), "scaling_factor": vae.config.scaling_factor}


def colourful(grey, labels, n: int, g: torch.Generator) -> torch.Tensor:
    """Garments in the three renderings, some with their colours mixed anew, so that no tone is foreign to the
    decoder."""
    parts, counts = [], [n - 2 * (3 * n // 8), 3 * n // 8, 3 * n // 8]
    for style, count in zip(STYLES, counts, strict=True):
        i = torch.randint(len(grey), (count,), generator=g)
        parts.append(garments.draw(grey[i], labels[i], style, g)[0])
    x = torch.cat(parts)
    keep = (torch.rand(n, 1, 1, 1, generator=g) < 0.6).float()
    mix = torch.rand(n, 3, 1, 1, generator=g) * (1 - x) + torch.rand(n, 3, 1, 1, generator=g) * x
    return keep * x + (1 - keep) * mix


@torch.no_grad()
def encode_all(vae, grey, labels, a) -> tuple[torch.Tensor, list[str]]:
    """Latents (mean and standard deviation) of every garment, each in one rendering, with its caption."""
    g = torch.Generator().manual_seed(a.seed + 2)
    order = torch.randperm(len(grey), generator=g)
    bounds = (torch.tensor([0.0, *STYLES.values()]).cumsum(0) * len(grey)).round().long()
    latents, captions = [], []
    for style, lo, hi in zip(STYLES, bounds[:-1], bounds[1:], strict=True):
        for i in order[lo:hi].split(500):
            x, texts = garments.draw(grey[i], labels[i], style, g)
            d = vae.encode(x.to(a.device) * 2 - 1).latent_dist
            latents.append(torch.cat([d.mean, d.std], 1))
            captions += texts
    return torch.cat(latents), captions


def make_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """CLIP's byte-level tokenizer with a vocabulary of its own. It knows the words of the held-out style as
    words, without the model having seen them, as a large tokenizer would."""
    words = sorted(set(captions)) + [garments.caption(i, "ink") for i in range(10)] * 20
    byte_level = sorted({b for b in _byte_symbols()})
    vocab = {t: i for i, t in enumerate(byte_level + [b + "</w>" for b in byte_level])}
    vocab |= {"<|startoftext|>": len(vocab), "<|endoftext|>": len(vocab) + 1}
    base = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=MAX_TOKENS)
    return base.train_new_from_iterator(words, vocab_size=700)


def _byte_symbols() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel.alphabet()


def train_denoiser(vae, latents, captions, tokenizer, a, scratch):
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=64,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).to(a.device)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(64, 128), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=64, attention_head_dim=4, norm_num_groups=16,
    ).to(a.device)  # fmt: skip
    scheduler = noise_schedule()
    trained = torch.nn.ModuleDict({"text_encoder": text_encoder, "unet": unet})
    ema = EMAModel(trained.parameters(), decay=0.9985, use_ema_warmup=False)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1.2e-3, weight_decay=1e-3, betas=(0.9, 0.99))
    lr = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.2e-3, total_steps=a.steps, pct_start=0.04)
    ids = tokenizer(
        captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    ids, empty = (
        ids.to(a.device),
        tokenizer("", padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids.to(
            a.device
        ),
    )
    g = torch.Generator().manual_seed(a.seed + 3)
    started, losses, curve = time.time(), [], {}
    for step in range(a.steps):
        i = torch.randint(len(latents), (a.batch,), generator=g)
        mean, std = latents[i].chunk(2, 1)
        x = (mean + std * torch.randn(mean.shape, generator=g).to(a.device)) * vae.config.scaling_factor
        noise = torch.randn(x.shape, generator=g).to(a.device)
        t = torch.randint(1000, (a.batch,), generator=g).to(a.device)
        drop = (torch.rand(a.batch, 1, generator=g) < 0.1).to(a.device)  # for guidance without a classifier
        hidden = text_encoder(torch.where(drop, empty, ids[i]))[0]
        predicted = unet(scheduler.add_noise(x, noise, t), t, hidden).sample
        snr = compute_snr(scheduler, t)
        weight = snr.clamp(max=5) / (snr + 1)  # min-SNR-5 for v-prediction
        loss = (
            F.mse_loss(predicted, scheduler.get_velocity(x, noise, t), reduction="none").mean((1, 2, 3))
            * weight
        ).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step(), lr.step(), optimizer.zero_grad()
        ema.step(trained.parameters())
        losses.append(loss.item())
        if (step + 1) % 200 == 0:
            curve[step + 1] = round(sum(losses[-200:]) / 200, 5)
            print(
                f"denoiser step {step + 1} loss {curve[step + 1]} {time.time() - started:.0f} s", flush=True
            )
        if (step + 1) % 500 == 0:
            ema.store(trained.parameters())
            ema.copy_to(trained.parameters())
            save(vae, text_encoder, tokenizer, unet, scratch / "sofar", {"steps": step + 1})
            ema.restore(trained.parameters())
    ema.copy_to(trained.parameters())
    return (
        text_encoder,
        unet,
        {"steps": a.steps, "batch": a.batch, "seconds": round(time.time() - started), "loss": curve},
    )


def noise_schedule() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="trailing",
    )  # fmt: skip


def save(vae, text_encoder, tokenizer, unet, out: Path, card: dict) -> None:
    half = [copy.deepcopy(m).to("cpu", torch.float16).eval() for m in (vae, text_encoder, unet)]
    pipe = StableDiffusionPipeline(
        vae=half[0], text_encoder=half[1], tokenizer=tokenizer, unet=half[2], scheduler=noise_schedule(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(out, safe_serialization=True)
    # transformers would load it as stored, beside a U-Net in fp32
    config = out / "text_encoder" / "config.json"
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
    card["parameters"] = {
        k: sum(p.numel() for p in m.parameters())
        for k, m in zip(("vae", "text_encoder", "unet"), half, strict=True)
    }
    (out / "training.json").write_text(json.dumps(card, indent=1) + "\n")
    if "denoiser" in card:
        model_card.write(out)


if __name__ == "__main__":
    main()
