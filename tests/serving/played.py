"""What rules earn in an environment."""

import numpy as np
from pydantic import TypeAdapter

from fedray.scenario.serving_rule import AnyServingRule
from fedray.serving.rules import serving_rule

RULES = TypeAdapter(AnyServingRule)


def play(environment, rule, steps, seed=0):
    """The steps that a rule takes in an environment."""
    observations = environment.reset(np.random.default_rng(seed))
    chosen = serving_rule(RULES.validate_python(rule), environment, np.random.default_rng(seed + 1))
    taken = []
    for _ in range(steps):
        taken.append(environment.step(chosen.act(observations)))
        observations = taken[-1].observations
    return taken


def earned(environment, rule, steps, seed=0, warm_up=0):
    """Its mean reward a request, without those of the first steps, when nothing runs yet."""
    return float(np.mean([step.rewards for step in play(environment, rule, steps, seed)[warm_up:]]))
