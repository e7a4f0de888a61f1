"""The providers of an edge: how fast they are, what they have cached, what they cost, how good they are."""

from dataclasses import dataclass

import numpy as np

from fedray.scenario.environment import Edge
from fedray.scenario.kinds import implementation
from fedray.scenario.providers import Drawn, Listed
from fedray.serving.draws import uniform
from fedray.serving.quality import qualities

CACHED = 0.5  # the share of models that a provider has cached, where nothing else says so


@dataclass(frozen=True)
class Fleet:
    """P providers, M models, C numbers of steps.

    Attributes:
        steps_per_s: [P].
        cold_start_s: seconds to load a model that is not cached [P].
        price: of a step, in reward [P].
        joules_per_step: [P].
        cached: whether a provider has a model [P, M] bool.
        quality: after each number of steps [P, C].
        typical_quality: of an average provider [C].
    """

    steps_per_s: np.ndarray
    cold_start_s: np.ndarray
    price: np.ndarray
    joules_per_step: np.ndarray
    cached: np.ndarray
    quality: np.ndarray
    typical_quality: np.ndarray


def fleet(section: Edge, rng: np.random.Generator) -> Fleet:
    """The providers of a section. `rng`: of all that is drawn."""
    providers = section.providers
    quality = qualities(section.quality, np.array(section.steps), providers.count, rng)
    if isinstance(providers, Listed):
        return _listed(providers, section.models, quality)
    return _drawn(providers, section.models, quality, rng)


def placement(providers: int, models: int, rng: np.random.Generator) -> np.ndarray:
    """Which models lie where [providers, models] bool: half of them at every provider, at random.

    Args:
        providers: how many.
        models: how many.
        rng: of the draw.
    """
    ranks = rng.random((providers, models)).argsort(axis=1)
    return ranks < max(1, round(CACHED * models))


def _drawn(
    section: Drawn, models: int, quality: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> Fleet:
    count = section.count
    steps_per_s = uniform(rng, section.steps_per_s, count)
    return Fleet(
        steps_per_s=steps_per_s,
        cold_start_s=uniform(rng, section.cold_start_s, count),
        price=uniform(rng, section.price, count),
        joules_per_step=uniform(rng, section.active_w, count) / steps_per_s,
        cached=placement(count, models, rng),
        quality=quality[0],
        typical_quality=quality[1],
    )


def _listed(section: Listed, models: int, quality: tuple[np.ndarray, np.ndarray]) -> Fleet:
    devices = [implementation(one.device)(one.device) for one in section.of]
    return Fleet(
        steps_per_s=np.array([1 / device.time_s(section.step_flops) for device in devices]),
        cold_start_s=np.array([one.cold_start_s for one in section.of]),
        price=np.array([one.price for one in section.of]),
        joules_per_step=np.array([device.energy_j(section.step_flops) for device in devices]),
        cached=np.array([[model in one.models for model in range(models)] for one in section.of]),
        quality=quality[0],
        typical_quality=quality[1],
    )
