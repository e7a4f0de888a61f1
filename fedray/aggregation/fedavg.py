"""FedAvg (McMahan et al. 2017, Algorithm 1): w_{t+1} = w_t + sum_k n_k (w_k - w_t) / sum_k n_k.

Every other rule is this one with a part changed.
"""

from fedray.aggregation.rule import Rule


class FedAvg(Rule):
    """A rule's defaults: the weighted mean of the updates is added."""
