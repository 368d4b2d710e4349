"""Norm clipping: every upload is scaled down to a given norm."""

from typing import Unpack

import torch

from byzflower.numerics.rows import Rows
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.options import StrategyOptions
from byzflower.strategies.pre_aggregation.base import clip_factors
from byzflower.strategies.result import AggregationResult, Gradients, check


def norm_clipping(gradients: Gradients, max_norm: float) -> AggregationResult:
    """Scale every row longer than `max_norm` down to it, and average (Sun et al., 2019).

    Args:
        gradients: (n, d) pseudo-gradients.
        max_norm: M, positive.

    Raises:
        TooFewClients: n < 1.
        ValueError: M is not positive.
    """
    rows = Rows.of(gradients)
    check(max_norm > 0, "max_norm must be positive", max_norm)
    weights = clip_factors(rows.squared_norms.sqrt(), max_norm) / rows.n
    return AggregationResult(rows.combine(weights), weights=weights)


class NormClipping(RobustStrategy):
    """Mean of the uploads, each scaled down to at most a given norm."""

    def __init__(self, max_norm: float = 1.0, **options: Unpack[StrategyOptions]) -> None:
        """Make the strategy.

        Args:
            max_norm: M, positive; of the order of benign pseudo-gradients' norms.
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        check(max_norm > 0, "max_norm must be positive", max_norm)
        self.max_norm = max_norm

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `norm_clipping`."""
        return norm_clipping(gradients, self.max_norm)
