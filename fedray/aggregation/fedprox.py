"""FedProx (Li et al. 2020, Algorithm 2): each client minimises F_k(w) + mu / 2 |w - w_t|^2."""

from collections.abc import Mapping

from torch import Tensor

from fedray.aggregation.rule import AdjustGradient, Rule


class FedProx(Rule):
    def on_client_start(
        self, start: Tensor, extra: Tensor, state: Mapping[str, Tensor]
    ) -> AdjustGradient | None:
        """The proximal term's gradient, mu (w - w_t), joins every step's."""

        def adjust(gradient: Tensor, weights: Tensor) -> None:
            gradient.add_(weights - start, alpha=self.section.mu)

        return adjust
