"""Centered clipping: steps of bounded length away from the last aggregate."""

from typing import Unpack

import torch

from byzflower.numerics.distances import distances_to_mixture, with_point
from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import one_thread
from byzflower.strategies.base import RememberingStrategy
from byzflower.strategies.options import StrategyOptions
from byzflower.strategies.pre_aggregation.base import clip_factors
from byzflower.strategies.result import AggregationResult, Gradients, check


@one_thread()
def centered_clipping(
    gradients: Gradients, reference: torch.Tensor | None = None, tau: float = 10.0, iterations: int = 1
) -> AggregationResult:
    """Move from a reference by the mean of the clipped differences to it (Karimireddy et al., 2021).

    L times v <- v + mean_i (x_i - v) min(1, tau / ||x_i - v||). All iterates are mixtures of v and the rows,
    so more than one iteration needs pairwise distances, but no further pass over the rows.

    Args:
        gradients: (n, d) pseudo-gradients.
        reference: (d,) v, usually the previous aggregate; default zero.
        tau: clipping radius, positive.
        iterations: L, at least 1.

    Returns:
        The aggregate, and the weights of the rows in it (the reference has the rest).

    Raises:
        TooFewClients: n < 1.
        ValueError: `tau` or `iterations` out of range.
    """
    rows = Rows.of(gradients)
    _check_options(tau, iterations)
    n = rows.n
    to_reference = rows.squared_distances_to(reference)
    mixture = to_reference.new_zeros(n + 1)  # the rows, then the reference
    mixture[n] = 1
    away = to_reference
    for iteration in range(iterations):
        if iteration:
            points = with_point(rows.squared_distances, to_reference)
            away = distances_to_mixture(points, mixture)[:n]
        steps = clip_factors(away.sqrt(), tau) / n
        mixture = mixture * (1 - steps.sum())
        mixture[:n] += steps
    gradient = rows.combine(mixture[:n])
    if reference is not None:
        gradient += (reference * mixture[n]).to(gradient.dtype)
    return AggregationResult(gradient, weights=mixture[:n])


def _check_options(tau: float, iterations: int) -> None:
    check(tau > 0, "tau must be positive", tau)
    check(iterations >= 1, "iterations must be at least 1", iterations)


class CenteredClipping(RememberingStrategy):
    """The last aggregate plus the mean of the uploads' differences to it, clipped to radius tau."""

    def __init__(self, tau: float = 10.0, iterations: int = 1, **options: Unpack[StrategyOptions]) -> None:
        """Make the strategy.

        Args:
            tau: clipping radius, positive: 10 in STRIKE, 0.1 and 1 in ROP.
            iterations: L, at least 1; 1 in both.
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        _check_options(tau, iterations)
        self.tau = tau
        self.iterations = iterations

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `centered_clipping` about the previous aggregate."""
        return centered_clipping(gradients, self.previous, self.tau, self.iterations)
