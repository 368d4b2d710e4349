"""Coordinate-wise median."""

import torch

from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.columns import mean_of_middle
from byzflower.strategies.result import AggregationResult, require_matrix


def median(gradients: torch.Tensor) -> AggregationResult:
    """Coordinate-wise median (Yin et al., 2018); for even n the mean of the two middle values.

    Args:
        gradients: (n, d) pseudo-gradients.

    Raises:
        TooFewClients: n < 1.
    """
    n, _ = require_matrix(gradients)
    return AggregationResult(mean_of_middle(gradients, (n - 1) // 2, n // 2 + 1))


class Median(RobustStrategy):
    """Coordinate-wise median of the pseudo-gradients."""

    def aggregate(self, gradients: torch.Tensor, weights: torch.Tensor) -> AggregationResult:
        """Apply `median`."""
        return median(gradients)
