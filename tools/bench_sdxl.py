"""SDXL's LoRA in fedray against diffusers' training script, in steps a second on one GPU.

    uv run python tools/bench_sdxl.py [--base FOLDER] [--resolution 1024] [--steps 10] [--repeats 3] [--gangs 2,4]

Without --base, an SDXL of full size with random weights is made in a temporary folder (7 GB). Rank 8 on the
attention of the U-Net, batches of 1 in bf16 (adapters in fp32), clipping, AdamW. In turns, in this process:

script   a step as examples/text_to_image/train_text_to_image_lora_sdxl.py of diffusers takes it: the autoencoder,
         both text encoders, noise, U-Net, backward, clipping, AdamW
loop     the same without autoencoder and text encoders, whose results are computed before
fedray   local updates of a client, sum and report with them; samples are encoded before, as in a run from round 2 on
gang K   the same of K clients in one pass (`runtime.gang`), a client and step

The table has medians and, beside them, ratios to `script` and to `loop`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from fedray import checks, shipped
from fedray.executors import Job
from fedray.executors.client_worker import ClientWorker

NETWORKS = shipped.HERE / "networks" / "stable-diffusion-xl-base-1.0"
CLIENTS = 8
RANK = 8
CLIP = 1.0


def random_base(folder: Path, device: torch.device) -> Path:
    """SDXL of full size as `from_pretrained` reads it, with random weights in fp16."""
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(shipped.HERE / "tiny-sd" / "tokenizer", model_max_length=77)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}

    def config(part: str) -> dict[str, Any]:
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        return dict(json.loads((NETWORKS / part / name).read_text()))

    def text_encoder(kind: Any, part: str) -> Any:
        return kind(CLIPTextConfig(**(config(part) | ids)))

    scheduler = EulerDiscreteScheduler.from_config(config("scheduler"))
    torch.manual_seed(0)
    with device:
        pipeline = StableDiffusionXLPipeline(
            vae=AutoencoderKL.from_config(config("vae")),
            text_encoder=text_encoder(CLIPTextModel, "text_encoder"),
            text_encoder_2=text_encoder(CLIPTextModelWithProjection, "text_encoder_2"),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=UNet2DConditionModel.from_config(config("unet")),
            scheduler=scheduler,
        )
    pipeline.to(torch.float16).save_pretrained(folder)
    return folder


class Script:
    """A step of diffusers' script on a client's first sample.

    Args:
        base: the folder of an SDXL.
        resolution: pixels a side.
        device: where it trains.
        checkpointing: whether activations are computed again in the backward pass.
    """

    def __init__(self, base: Path, resolution: int, device: torch.device, checkpointing: bool) -> None:
        from diffusers import DDPMScheduler, StableDiffusionXLPipeline
        from diffusers.training_utils import cast_training_params
        from peft import LoraConfig

        pipeline: Any = StableDiffusionXLPipeline.from_pretrained(base, torch_dtype=torch.bfloat16).to(device)
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline
        self.vae = pipeline.vae.to(torch.float32)
        for part in (pipeline.unet, self.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            part.requires_grad_(False)
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        pipeline.unet.add_adapter(
            LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=targets)
        )
        cast_training_params(pipeline.unet, dtype=torch.float32)
        if checkpointing:
            pipeline.unet.enable_gradient_checkpointing()
        pipeline.unet.train()
        self.trained = [p for p in pipeline.unet.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-4)
        self.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.device = device
        size = (resolution, resolution)
        self.time_ids = torch.tensor([[*size, 0, 0, *size]], device=device, dtype=torch.bfloat16)
        self.pixels = torch.rand(1, 3, *size, device=device) * 2 - 1
        self.known = self.encoded()

    @torch.no_grad()
    def encoded(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents, text and pooled text of the sample."""
        latents = self.vae.encode(self.pixels).latent_dist.sample() * self.vae.config.scaling_factor
        text, _, pooled, _ = self.pipeline.encode_prompt(
            "a photo of a sneaker", device=self.device, do_classifier_free_guidance=False
        )
        return latents.to(torch.bfloat16), text, pooled

    def steps(self, n: int, encode: bool) -> None:
        for _ in range(n):
            self.step(encode)

    def step(self, encode: bool) -> None:
        latents, text, pooled = self.encoded() if encode else self.known
        noise = torch.randn_like(latents)
        most = self.scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, most, (1,), device=self.device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        added = {"time_ids": self.time_ids, "text_embeds": pooled}
        with torch.autocast(self.device.type, torch.bfloat16):
            predicted = self.pipeline.unet(noisy, timesteps, text, added_cond_kwargs=added).sample
        F.mse_loss(predicted.float(), noise.float()).backward()
        torch.nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Federated:
    """Local updates of clients in this process.

    Args:
        base: the folder of an SDXL.
        resolution: pixels a side.
        device: where it trains.
        checkpointing: whether activations are computed again in the backward pass.
        gang: clients in one pass, at most.
        steps: of a local update.
    """

    def __init__(
        self, base: Path, resolution: int, device: torch.device, checkpointing: bool, gang: int, steps: int
    ) -> None:
        settings = [
            f"model={{kind: text_to_image, base: {base}, resolution: {resolution}}}",
            f"tuning={{kind: lora, rank: {RANK}, alpha: {RANK}, targets: attention}}",
            f"population={{clients: {CLIENTS}, per_round: {CLIENTS}}}",
            "data.partition={kind: iid}",
            f"training.local_steps={steps}",
            f"training.clip_norm={CLIP}",
            f"training.gradient_checkpointing={str(checkpointing).lower()}",
            f"runtime={{executor: serial, gang: {gang}}}",
        ]
        loaded = checks.check(checks.find("sdxl-lora"), settings)
        self.worker = ClientWorker(Job(loaded.scenario, loaded.folder), device)
        for client in range(gang):
            self.worker.shard(client)
        self.buffer = self.worker.initial()[0].copy()

    def update(self, gang: int = 1) -> None:
        """One pass of so many clients."""
        clients = list(range(gang))
        weight = sum(len(self.worker.client_indices[client]) for client in clients)
        _, reports, _ = self.worker.train_all(self.buffer, {}, weight, 1, clients, [None] * gang)
        assert all(report.failure is None for report in reports), reports


def seconds(work: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turns(work: dict[str, Callable[[], None]], device: torch.device, repeats: int) -> dict[str, float]:
    """The median seconds of each, after one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(repeats + 1):
        for name, one in work.items():
            took = seconds(one, device)
            if turn:
                taken[name].append(took)
    return {name: statistics.median(values) for name, values in taken.items()}


def measure(base: Path, resolution: int, device: torch.device, arguments: argparse.Namespace) -> None:
    n = arguments.steps
    checkpointing = arguments.gradient_checkpointing
    gangs = [int(k) for k in arguments.gangs.split(",") if k]
    script = Script(base, resolution, device, checkpointing)
    federated = Federated(base, resolution, device, checkpointing, max(gangs, default=1), n)

    work = {
        "script": partial(script.steps, n, True),
        "loop": partial(script.steps, n, False),
        "fedray": federated.update,
    }
    medians = {name: took / n for name, took in in_turns(work, device, arguments.repeats).items()}
    del script, work
    for gang in gangs:
        try:
            took = in_turns({"gang": partial(federated.update, gang)}, device, arguments.repeats)["gang"]
            medians[f"gang {gang}"] = took / n / gang
        except torch.cuda.OutOfMemoryError:
            print(f"gang {gang}: out of the GPU's memory")
        torch.cuda.empty_cache()
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{resolution} pixels on {name}, gradient checkpointing {checkpointing}")
    print(f"{'':<10}{'ms a step':>12}{'steps/s':>10}{'to script':>11}{'to loop':>9}{'to fedray':>11}")
    for key, value in medians.items():
        ratios = [medians[other] / value for other in ("script", "loop", "fedray")]
        print(
            f"{key:<10}{value * 1e3:>12.1f}{1 / value:>10.2f}{ratios[0]:>11.2f}{ratios[1]:>9.2f}{ratios[2]:>11.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, help="the folder of an SDXL")
    parser.add_argument("--resolution", default="1024", help="pixels a side, several with commas")
    parser.add_argument("--steps", type=int, default=10, help="of a local update")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gangs", default="2,4")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        base = arguments.base or random_base(Path(folder) / "sdxl", device)
        for resolution in (int(r) for r in arguments.resolution.split(",")):
            measure(base.resolve(), resolution, device, arguments)


if __name__ == "__main__":
    main()
