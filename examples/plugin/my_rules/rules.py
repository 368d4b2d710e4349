"""A new rule."""

from typing import Unpack

import torch

from byzflower.numerics.rows import Rows
from byzflower.strategies import AggregationResult, RobustStrategy
from byzflower.strategies.base import StrategyOptions


def clipped_mean(gradients: torch.Tensor, limit: float) -> AggregationResult:
    """Mean of the rows, none longer than `limit`."""
    norms = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64)
    weights = torch.clamp(limit / norms, max=1.0) / len(gradients)
    return AggregationResult(weights.to(gradients.dtype) @ gradients, weights=weights)


class ClippedMean(RobustStrategy):
    """Mean of the uploads, none longer than a limit."""

    def __init__(self, limit: float = 1.0, **options: Unpack[StrategyOptions]) -> None:
        """Make the strategy; everything but the limit is `RobustStrategy`'s."""
        super().__init__(**options)
        self.limit = limit

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `clipped_mean`."""
        return clipped_mean(gradients.matrix(), self.limit)
