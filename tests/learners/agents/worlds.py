"""Small environments whose best values are known in closed form."""

import numpy as np

import fedray
from fedray.data import Samples


class Step:
    def __init__(self, observations, rewards, ended, measures):
        self.observations = observations
        self.rewards = rewards
        self.ended = ended
        self.measures = measures


class Chain:
    """Four places in a row. Action 1 goes right, action 0 left; a step onto the last place earns 1 and ends
    the episode, and the next one begins at the first. By the discount g the best action at a place that is d
    steps from the last is worth g^(d - 1)."""

    observation_size = 4
    actions = 2

    def __init__(self, copies, shrinks=False):
        self.copies = copies
        self.numbers = 3 if shrinks else 4  # of an observation behind a step

    def reset(self, generator):
        self.place = generator.integers(0, 3, self.copies)
        return np.eye(4, dtype=np.float32)[self.place]

    def step(self, actions):
        self.place = np.clip(self.place + 2 * actions - 1, 0, 3)
        ended = self.place == 3
        self.place[ended] = 0
        observations = np.eye(4, dtype=np.float32)[self.place, : self.numbers]
        return Step(observations, ended.astype(np.float32), ended, {"right": actions.astype(np.float32)})


class Chains(Samples):
    has_images = False
    label_names = ("request",)

    def __init__(self, n, shrinks=False):
        self.labels = np.zeros(n, np.int64)
        self.shrinks = shrinks

    def environment(self, client, generator, copies):
        return Chain(copies, self.shrinks)

    def playing_s(self, client, requests):
        return float(requests)


class ChainSource(fedray.Source):
    """As many requests as `requests` of its section says, and a quarter of them to test on."""

    class Section(fedray.Source.Section):
        requests: int = 64
        shrinks: bool = False
        has_environments = True

    def open(self, split):
        return Chains(self.section.requests // (4 if split == "test" else 1), self.section.shrinks)

    @property
    def info(self):
        extra = {"observation_size": 4, "actions": 2}
        return fedray.DatasetInfo(0, None, ("request",), extra=extra)
