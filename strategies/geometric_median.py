"""Geometric median (RFA): the point of least total distance to the uploads."""

from typing import Unpack

import torch

from byzflower.strategies.base import RobustStrategy, StrategyOptions
from byzflower.strategies.distances import distances_to_mixture
from byzflower.strategies.result import AggregationResult, Gradients, check
from byzflower.strategies.rows import Rows
from byzflower.threads import one_thread


@one_thread()
def geometric_median(
    gradients: Gradients, weights: torch.Tensor | None = None, iterations: int = 8, nu: float = 1e-6
) -> AggregationResult:
    """Approximate the weighted geometric median by smoothed Weiszfeld steps (RFA; Pillutla et al., 2022).

    From the weighted mean z, a_i = w_i / max(nu, ||x_i - z||), z = sum a_i x_i / sum a_i. As z is always a
    mixture of rows, pairwise distances are all that the steps need.

    Args:
        gradients: (n, d) pseudo-gradients.
        weights: (n,) non-negative, sums to 1; uniform by default.
        iterations: T, not negative.
        nu: smallest distance that a weight is divided by, positive.

    Raises:
        TooFewClients: n < 1.
        ValueError: `iterations` or `nu` out of range.
    """
    rows = Rows.of(gradients)
    _check_options(iterations, nu)
    if weights is None:
        weights = torch.full((rows.n,), 1 / rows.n, dtype=torch.float64, device=rows.device)
    mixture = weights
    for _ in range(iterations):
        away = distances_to_mixture(rows.squared_distances, mixture).sqrt()
        mixture = weights / away.clamp(min=nu)
        mixture = mixture / mixture.sum()
    return AggregationResult(rows.combine(mixture), weights=mixture)


def _check_options(iterations: int, nu: float) -> None:
    check(iterations >= 0, "iterations must not be negative", iterations)
    check(nu > 0, "nu must be positive", nu)


class GeometricMedian(RobustStrategy):
    """Geometric median of the uploads by smoothed Weiszfeld steps (RFA), weighted by num-examples."""

    def __init__(self, iterations: int = 8, nu: float = 1e-6, **options: Unpack[StrategyOptions]) -> None:
        """Make the strategy.

        Args:
            iterations: T: 8 in STRIKE, 3 in ROP.
            nu: smallest distance that a weight is divided by, positive.
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        _check_options(iterations, nu)
        self.iterations = iterations
        self.nu = nu

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `geometric_median`."""
        return geometric_median(gradients, weights, self.iterations, self.nu)
