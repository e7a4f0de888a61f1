"""What users ask for: models by Zipf's law, wanted quality, deadlines, and when."""

from dataclasses import dataclass

import numpy as np

from fedray.scenario.environment import Edge
from fedray.scenario.providers import Popularity
from fedray.serving.catalogue import zipf
from fedray.serving.draws import uniform


@dataclass(frozen=True)
class Requests:
    """One request in each of E copies.

    Attributes:
        models: which is asked for [E] int64.
        wanted: the quality, in 0..1 [E].
        deadlines_s: seconds from now until the picture is late [E].
    """

    models: np.ndarray
    wanted: np.ndarray
    deadlines_s: np.ndarray


def shares(section: Popularity, models: int, rng: np.random.Generator) -> np.ndarray:
    """How often a client asks for each model [models], as shares of 1, but for its own.

    Args:
        section: how popular models are.
        models: how many.
        rng: the client's own.
    """
    common = zipf(models, section.alpha)
    if section.client_alpha is None:
        return common
    drawn: np.ndarray = rng.dirichlet(section.client_alpha * models * common)
    return drawn


def with_own(section: Popularity, common: np.ndarray, client: int) -> np.ndarray:
    """How often a client asks for each model [models], as shares of 1.

    Args:
        section: how popular models are.
        common: the shares but for its own model [models].
        client: by number; so is its own model.
    """
    own = np.arange(len(common)) == client % len(common)
    mixed: np.ndarray = (1 - section.own) * common + section.own * own
    return mixed


def all_shares(section: Popularity, models: int) -> np.ndarray:
    """How often all users together ask for each model [models], as shares of 1, where each model is the own
    one of equally many.

    Args:
        section: how popular models are.
        models: how many.
    """
    return (1 - section.own) * zipf(models, section.alpha) + section.own / models


def draw(section: Edge, popularity: np.ndarray, copies: int, rng: np.random.Generator) -> Requests:
    """The next request of every copy.

    Args:
        section: of the edge.
        popularity: shares of models [models].
        copies: E.
        rng: of these requests.
    """
    models = np.searchsorted(popularity.cumsum()[:-1], rng.random(copies), side="right")
    wanted = uniform(rng, section.wanted_quality, copies)
    return Requests(models, wanted, uniform(rng, section.deadline_s, copies))
