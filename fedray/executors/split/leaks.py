"""What the server of a split model could learn of its clients' inputs, tried on samples that nobody trains
on."""

from pathlib import Path

import numpy as np
import torch

from fedray.data import Samples
from fedray.evaluation.leakage import distance_correlation, reconstruct
from fedray.executors import Job
from fedray.executors.spill import StateArrays
from fedray.executors.split.defences import defence
from fedray.learners.cut import cut, tensors
from fedray.learners.learner import Learner
from fedray.learners.sheets import sheet
from fedray.learners.stages import inputs, run
from fedray.randomness import SERVER, generator, key
from fedray.transport.buffer import DTYPES
from fedray.transport.compression import codecs
from fedray.transport.messages import WireFormat, pack, unpack

SHOWN = 8  # pictures and what is made of them


class ActivationsObserver:
    """The server of a split, which looks at what clients send up."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def measure(
        self, learner: Learner, buffer: np.ndarray, state: StateArrays, sheet: Path
    ) -> dict[str, float]:
        return measure(self.job, learner, self.job.dataset.real, sheet)


@torch.no_grad()
def measure(job: Job, learner: Learner, samples: Samples, sheet_file: Path) -> dict[str, float]:
    """The distance correlation of inputs and what is sent up for them, and how well an attacker rebuilds the
    inputs who knows half of the samples, each by the most telling tensor; of pictures a sheet, originals
    above what the attacker makes of them.

    Args:
        job: whose scenario says where the model is cut, and how many samples are tried.
        learner: the model, whole.
        samples: that nobody trains on, or all where there are no others.
        sheet_file: the PNG file to write.
    """
    scenario = job.scenario
    section = scenario.evaluation.leakage
    topology = scenario.split
    assert section is not None
    result = cut(learner.stages, topology)
    n = min(section.samples, len(samples))
    chosen = np.sort(generator(scenario.seed, 0, SERVER, "leakage").choice(len(samples), n, replace=False))
    draws = torch.Generator().manual_seed(key(scenario.seed, 0, SERVER, "leakage"))
    values = inputs(learner.draw(learner.encode(samples, chosen), np.arange(n), draws))
    with learner.evaluating():
        sent = tensors(result.smashed, run(result.front, values))
    if (defends := defence(topology.defence)) is not None:
        sent = defends.sent(sent, draws)
    wire = WireFormat(codecs(topology.compression), DTYPES[scenario.training.precision])
    if result.on_air:  # the numbers that the server measures are its own
        wire = WireFormat((), torch.float32)
    arrived = unpack(pack(sent, wire, 0), wire, 0, sent[0][1].device)
    secret = values[result.secret]
    numbers = [t.float() for _, t in arrived if t.is_floating_point()]
    seen = [t[:, None] if t.ndim == 1 else t for t in numbers]
    words = 0 if secret.is_floating_point() else int(secret.max()) + 1
    seed = key(scenario.seed, 0, SERVER, "attack")
    attacks = [reconstruct(x, secret, n // 2, words, section.attack_steps, seed) for x in seen]
    error, made = min(attacks, key=lambda attack: attack[0])
    if secret.ndim == 4 and secret.shape[1] in (1, 3):
        pictures = torch.cat([secret[n // 2 :][:SHOWN], made[:SHOWN]]).cpu()
        if secret.min() < 0:  # in -1..1, and not in 0..1
            pictures = pictures / 2 + 0.5
        sheet_file.parent.mkdir(parents=True, exist_ok=True)
        sheet(pictures.clamp(0, 1).expand(-1, 3, -1, -1), len(made[:SHOWN])).save(sheet_file)
    correlation = max(float(distance_correlation(secret, x)) for x in seen)
    return {"eval_distance_correlation": round(correlation, 6), "eval_reconstruction_error": round(error, 6)}
