"""Federated averaging: the weighted mean, no robustness."""

import torch

from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.result import AggregationResult, require_matrix, weighted_sum


def mean(gradients: torch.Tensor, weights: torch.Tensor | None = None) -> AggregationResult:
    """Weighted mean of the rows (McMahan et al., 2017).

    Args:
        gradients: (n, d) pseudo-gradients.
        weights: (n,) non-negative, sums to 1; uniform by default.

    Raises:
        TooFewClients: n < 1.
    """
    n, _ = require_matrix(gradients)
    if weights is None:
        weights = torch.full((n,), 1 / n, dtype=torch.float64, device=gradients.device)
    return AggregationResult(weighted_sum(gradients, weights), weights=weights)


class FedAvg(RobustStrategy):
    """Federated averaging, weighted by num-examples: no defence but the quarantine of malformed uploads."""

    def aggregate(self, gradients: torch.Tensor, weights: torch.Tensor) -> AggregationResult:
        """Apply `mean`."""
        return mean(gradients, weights)

    def aggregate_buffers(
        self, buffers: torch.Tensor, result: AggregationResult, weights: torch.Tensor
    ) -> torch.Tensor:
        """Average them like the parameters."""
        return mean(buffers, weights).gradient
