"""Federated averaging: the weighted mean, no robustness."""

import torch

from byzflower.numerics.packed_rows import PackedRows, mean_of_contributors
from byzflower.numerics.rows import Rows
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.result import AggregationResult, Gradients


def mean(gradients: Gradients, weights: torch.Tensor | None = None) -> AggregationResult:
    """Weighted mean of the rows (McMahan et al., 2017).

    Args:
        gradients: (n, d) pseudo-gradients.
        weights: (n,) non-negative, sums to 1; uniform by default.

    Raises:
        TooFewClients: n < 1.
    """
    rows = Rows.of(gradients)
    if weights is None:
        weights = torch.full((rows.n,), 1 / rows.n, dtype=torch.float64, device=rows.device)
    return AggregationResult(rows.combine(weights), weights=weights)


class FedAvg(RobustStrategy):
    """Federated averaging, weighted by num-examples: no defence but the quarantine of malformed uploads."""

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `mean`."""
        return mean(gradients, weights)

    def aggregate_contributors(self, gradients: PackedRows, weights: torch.Tensor) -> AggregationResult:
        """Average every pack over the clients that sent it, in proportion to their weights."""
        return AggregationResult(mean_of_contributors(gradients, weights), weights=weights)

    def aggregate_buffers(
        self, buffers: torch.Tensor, result: AggregationResult, weights: torch.Tensor
    ) -> torch.Tensor:
        """Average them like the parameters."""
        return mean(buffers, weights).gradient
