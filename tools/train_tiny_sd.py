"""Trains tiny-sd and tiny-sd2, the small but whole Stable Diffusions that ship with fedray, and writes a model card.

    uv run python tools/train_tiny_sd.py --out fedray/shipped/tiny-sd
    uv run python tools/train_tiny_sd.py --out tiny-sd2-first --emoji fedray/shipped/emoji \
        --start-from fedray/shipped/tiny-sd --autoencoder-steps 1200 --steps 2000 --bf16
    uv run python tools/train_tiny_sd.py --out fedray/shipped/tiny-sd2 --emoji fedray/shipped/emoji --moved 0.25 \
        --start-from tiny-sd2-first --autoencoder-steps 0 --steps 2200 --rate 1e-3 --emoji-share 0.75 --seed 1

First the autoencoder on garments in every colour, then the text encoder and the U-Net together on captioned
photos, posters and sketches. Ink is held out: it is what the case study teaches. With --emoji half of what
each sees are emoji, moved about. About 45 minutes on two CPU cores; give a GPU by --device cuda. A broken run
goes on where it was. The judges (tools/train_judges.py) and tools/measure_emoji.py measure the result and add
their lines to the card.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import sys
import time
from pathlib import Path

import emoji_pictures
import garments
import model_card
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import EMAModel, compute_snr
from progress import Progress
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

STYLES = {"photo": 0.4, "poster": 0.3, "sketch": 0.3}
MAX_TOKENS = 32
COPIES = 40  # of each emoji that the U-Net learns from


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cpu")
    p.add_argument("--autoencoder-steps", type=int, default=1400, help="0: keep that of --start-from")
    p.add_argument("--steps", type=int, default=4000)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--rate", type=float, help="the denoiser's highest; otherwise 1.2e-3, or half of it")
    p.add_argument("--emoji-share", type=float, default=0.5, help="of what the denoiser sees")
    p.add_argument(
        "--moved",
        type=float,
        default=0.5,
        help="of the denoiser's emoji, mirrored; as many smaller and shifted",
    )
    p.add_argument("--emoji", type=Path, metavar="FOLDER", help="emoji to learn beside garments")
    p.add_argument(
        "--start-from", type=Path, metavar="BASE", help="begin with its weights, at half the rates"
    )
    p.add_argument(
        "--bf16", action="store_true", help="the autoencoder computes in bfloat16; weights stay fp32"
    )
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
    emoji = emoji_pictures.load(a.emoji) if a.emoji else None
    if emoji:
        card["emoji"] = json.loads((a.emoji / "source.json").read_text())

    if a.start_from:
        card["started_from"] = json.loads((a.start_from / "training.json").read_text())
    scratch = a.out.with_name(a.out.name + "-work")
    if (scratch / "vae").exists():  # a broken run goes on behind its autoencoder
        vae = AutoencoderKL.from_pretrained(scratch, subfolder="vae").to(a.device)
        card["autoencoder"] = json.loads((scratch / "autoencoder.json").read_text())
    elif a.start_from and not a.autoencoder_steps:
        vae = AutoencoderKL.from_pretrained(a.start_from, subfolder="vae").to(a.device).float()
        card["autoencoder"] = card["started_from"]["autoencoder"]
    else:
        vae, card["autoencoder"] = train_autoencoder(grey, labels, emoji, a)
        vae.save_pretrained(scratch / "vae")
        (scratch / "autoencoder.json").write_text(json.dumps(card["autoencoder"]))
    sets = [encode_all(vae, grey, labels, a)]
    if emoji:
        sets.append(encode_emoji(vae, *emoji, a))
    tokenizer = make_tokenizer(sets, a)
    text_encoder, unet, card["denoiser"] = train_denoiser(vae, sets, tokenizer, a, scratch)
    save(vae, text_encoder, tokenizer, unet, a.out, card)


def train_autoencoder(grey, labels, emoji, a) -> tuple[AutoencoderKL, dict]:
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=32, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 48), layers_per_block=1,
    ).to(a.device)  # fmt: skip
    rate = 2e-3
    if a.start_from:
        vae.load_state_dict(AutoencoderKL.from_pretrained(a.start_from, subfolder="vae").state_dict())
        rate = 1e-3
    optimizer = torch.optim.AdamW(vae.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=a.autoencoder_steps, pct_start=0.05
    )
    g = torch.Generator().manual_seed(a.seed + 1)
    batch, started, losses = 32, time.time(), []
    for step in range(a.autoencoder_steps):
        x = autoencoder_batch(grey, labels, emoji, batch, g).to(a.device) * 2 - 1
        with torch.autocast(a.device, torch.bfloat16, enabled=a.bf16):
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
        x = autoencoder_batch(grey, labels, emoji, 1000, g).to(a.device) * 2 - 1
        z = vae.encode(x).latent_dist.sample()
    vae.register_to_config(scaling_factor=round(1 / z.std().item(), 5))
    vae.requires_grad_(False).eval()
    facts = {"steps": a.autoencoder_steps, "batch": batch, "l1_of_0_to_1": round(sum(losses[-100:]) / 100, 4)}
    return vae, facts | {"seconds": round(time.time() - started), "scaling_factor": vae.config.scaling_factor}


def autoencoder_batch(grey, labels, emoji, n: int, g: torch.Generator) -> torch.Tensor:
    """Garments in every colour, and emoji for half of them where there are emoji."""
    if not emoji:
        return colourful(grey, labels, n, g)
    i = torch.randint(len(emoji[0]), (n // 2,), generator=g)
    some = emoji_pictures.recoloured(emoji_pictures.moved(emoji[0][i], g), g)
    return torch.cat([colourful(grey, labels, n - n // 2, g), some])


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


@torch.no_grad()
def encode_emoji(vae, pictures, captions, a) -> tuple[torch.Tensor, list[str]]:
    """Latents of `COPIES` of each emoji, moved about, with their captions."""
    g = torch.Generator().manual_seed(a.seed + 4)
    latents = []
    for _ in range(COPIES):
        d = vae.encode(emoji_pictures.moved(pictures, g, a.moved).to(a.device) * 2 - 1).latent_dist
        latents.append(torch.cat([d.mean, d.std], 1))
    return torch.cat(latents), captions * COPIES


def make_tokenizer(sets, a) -> CLIPTokenizer:
    """CLIP's byte-level tokenizer with a vocabulary of its own. It knows the words of the held-out style, and of
    the held-out emoji and subjects, as words, without the model having seen them, as a large tokenizer would."""
    words = sorted({text for _, captions in sets for text in captions})
    words += [garments.caption(i, "ink") for i in range(10)] * 20
    if a.emoji:
        beside = [a.emoji.with_name(f"{a.emoji.name}-{name}") for name in ("heldout", "subject")]
        words += 3 * [text for folder in beside for text in emoji_pictures.load(folder)[1]] + 3 * words
    byte_level = sorted({b for b in _byte_symbols()})
    vocab = {t: i for i, t in enumerate(byte_level + [b + "</w>" for b in byte_level])}
    vocab |= {"<|startoftext|>": len(vocab), "<|endoftext|>": len(vocab) + 1}
    base = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=MAX_TOKENS)
    return base.train_new_from_iterator(words, vocab_size=2500 if a.emoji else 700)


def _byte_symbols() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel.alphabet()


def make_networks(tokenizer, a) -> torch.nn.ModuleDict:
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
    )
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(64, 128), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=64, attention_head_dim=4, norm_num_groups=16,
    )  # fmt: skip
    if a.start_from:
        old = StableDiffusionPipeline.from_pretrained(a.start_from, torch_dtype=torch.float32)
        unet.load_state_dict(old.unet.state_dict())
        copy_text_encoder(old.text_encoder, old.tokenizer, text_encoder, tokenizer)
    return torch.nn.ModuleDict({"text_encoder": text_encoder, "unet": unet}).to(a.device)


@torch.no_grad()
def copy_text_encoder(old, old_tokenizer, new, tokenizer) -> None:
    """All weights; of the token embeddings, the rows of those tokens that both vocabularies have."""
    weights = old.state_dict()
    (name,) = (n for n in weights if "token_embedding" in n)
    rows, vocabulary = new.state_dict()[name].clone(), tokenizer.get_vocab()
    for token, row in old_tokenizer.get_vocab().items():
        if token in vocabulary:
            rows[vocabulary[token]] = weights[name][row]
    new.load_state_dict(weights | {name: rows})


def train_denoiser(vae, sets, tokenizer, a, scratch):
    trained = make_networks(tokenizer, a)
    text_encoder, unet, scheduler = trained["text_encoder"], trained["unet"], noise_schedule()
    rate = a.rate or (6e-4 if a.start_from else 1.2e-3)
    ema = EMAModel(trained.parameters(), decay=0.9985, use_ema_warmup=False)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=rate, weight_decay=1e-3, betas=(0.9, 0.99))
    lr = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=a.steps, pct_start=0.04)
    latents = torch.cat([z for z, _ in sets])
    ids = tokens([text for _, captions in sets for text in captions], tokenizer, a)
    empty = tokens([""], tokenizer, a)
    g = torch.Generator().manual_seed(a.seed + 3)
    state = Progress(
        scratch / "denoiser.pt", {"trained": trained, "ema": ema, "optimizer": optimizer, "lr": lr}, g
    )
    for _ in range(state.step, a.steps):
        i = draw_rows([len(z) for z, _ in sets], a.batch, a.emoji_share, g)
        mean, std = latents[i].chunk(2, 1)
        x = (mean + std * torch.randn(mean.shape, generator=g).to(a.device)) * vae.config.scaling_factor
        noise = torch.randn(x.shape, generator=g).to(a.device)
        t = torch.randint(1000, (a.batch,), generator=g).to(a.device)
        drop = (torch.rand(a.batch, 1, generator=g) < 0.1).to(a.device)  # for guidance without a classifier
        hidden = text_encoder(torch.where(drop, empty, ids[i]))[0]
        predicted = unet(scheduler.add_noise(x, noise, t), t, hidden).sample
        snr = compute_snr(scheduler, t)
        weight = snr.clamp(max=5) / (snr + 1)  # min-SNR-5 for v-prediction
        error = F.mse_loss(predicted, scheduler.get_velocity(x, noise, t), reduction="none")
        loss = (error.mean((1, 2, 3)) * weight).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step(), lr.step(), optimizer.zero_grad()
        ema.step(trained.parameters())
        state.done(loss.item())
        if state.step % 500 == 0:
            ema.store(trained.parameters())
            ema.copy_to(trained.parameters())
            save(vae, text_encoder, tokenizer, unet, scratch / "sofar", {"steps": state.step})
            ema.restore(trained.parameters())
    ema.copy_to(trained.parameters())
    facts = {"steps": a.steps, "batch": a.batch, "seconds": round(state.seconds), "loss": state.curve}
    return text_encoder, unet, facts


def tokens(captions: list[str], tokenizer, a) -> torch.Tensor:
    padded = {"padding": "max_length", "max_length": MAX_TOKENS, "truncation": True}
    return tokenizer(captions, **padded, return_tensors="pt").input_ids.to(a.device)


def draw_rows(sizes: list[int], n: int, share: float, g: torch.Generator) -> torch.Tensor:
    """Indices [n] into one set, or into two that lie behind each other, `share` of them into the second."""
    second = round(share * n) if len(sizes) == 2 else 0
    rows = torch.randint(sizes[0], (n - second,), generator=g)
    if not second:
        return rows
    return torch.cat([rows, sizes[0] + torch.randint(sizes[1], (second,), generator=g)])


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
    # where this machine had the base that it began from
    config = out / "vae" / "config.json"
    entries = {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"}
    config.write_text(json.dumps(entries, indent=2) + "\n")
    card["parameters"] = {
        k: sum(p.numel() for p in m.parameters())
        for k, m in zip(("vae", "text_encoder", "unet"), half, strict=True)
    }
    (out / "training.json").write_text(json.dumps(card, indent=1) + "\n")
    if "denoiser" in card:
        model_card.write(out)


if __name__ == "__main__":
    main()
