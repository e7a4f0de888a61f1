"""A process that makes images: one run's model, or one base model with the adapters of several runs."""

import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedray.http_service.requests import GeneratedImage, ImageRequest, Refusal, ServedRun
from fedray.image_files import described
from fedray.learners.adapter_files import DIFFUSERS_FILE
from fedray.learners.contexts import Sampling
from fedray.learners.learner import Learner
from fedray.learners.sheets import picture
from fedray.runs import reader
from fedray.runs.folder import RunFolder
from fedray.scenario import ScenarioError
from fedray.scenario.base import Refused
from fedray.trained_models import trained, untrained
from fedray.tuning.adapter_set import AdapterSet

RUN = "this run"  # as `fedray generate` names the model in a PNG


class Sampler:
    """Models that are resident, and the images they make, one after another.

    Args:
        runs: one, whose model is as `fedray generate` has it; or several that share a base.
        device: where the model is.

    Raises:
        ScenarioError: for files that are not whole.
    """

    def __init__(self, runs: Sequence[ServedRun], device: torch.device) -> None:
        torch.set_num_threads(runs[0].threads)
        self.folders = {run.name: Path(run.path) for run in runs}
        self.scenarios = {name: reader.scenario(folder).scenario for name, folder in self.folders.items()}
        first = next(iter(self.folders))
        load = trained if len(runs) == 1 else untrained
        self.learner: Learner = load(self.scenarios[first], RunFolder.reopen(self.folders[first]), device)
        self.adapters: AdapterSet | None = None
        if len(runs) > 1:
            self.adapters = _adapters(self.learner, self.folders)

    def sample(self, request: ImageRequest) -> GeneratedImage | Refusal:
        """The image that a request asks for, with the bits of `fedray generate`; a refusal for a prompt that
        the model cannot read."""
        start = time.monotonic()
        scenario = self.scenarios[request.adapter]
        prompt = scenario.tuning.named(request.prompt)
        sampling = replace(
            Sampling.of(scenario.evaluation), steps=request.steps, guidance_scale=request.guidance
        )
        try:
            self.learner.refuse_long_prompt(prompt)
            if self.adapters is not None:
                self.adapters.use(request.adapter)
            images: Any = self.learner.sample([prompt], [request.seed], sampling)
        except Refused as e:
            return Refusal(422, str(e))
        png = self._png(request, sampling, images[0])
        return GeneratedImage(png, time.monotonic() - start)

    def _png(self, request: ImageRequest, sampling: Sampling, image: torch.Tensor) -> bytes:
        """The same file as `fedray generate` writes.

        Args:
            request: that asked for it.
            sampling: how it was made.
            image: [3, h, w] in 0..1.
        """
        row = {"model": RUN, "prompt": request.prompt, "seed": request.seed}
        facts = {
            "negative_prompt": sampling.negative_prompt,
            "steps": sampling.steps,
            "guidance_scale": sampling.guidance_scale,
            "run": self.folders[request.adapter].name,
            "size": f"{image.shape[-1]}x{image.shape[-2]}",
        }
        file = io.BytesIO()
        picture(image).save(file, format="PNG", pnginfo=described([row], facts))
        return file.getvalue()


def _adapters(learner: Learner, folders: dict[str, Path]) -> AdapterSet:
    """The adapters that finished runs wrote, read as safetensors alone."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors = {}
    for name, folder in folders.items():
        file = reader.inside(folder, folder / "model" / DIFFUSERS_FILE)
        try:
            tensors[name] = load_file(file)
        except (OSError, SafetensorError) as e:
            raise ScenarioError([f"{file}: got {e}, expected the adapter that the run wrote"]) from None
    try:
        return AdapterSet(learner, tensors)
    except Refused as e:
        raise ScenarioError([str(e)]) from None
