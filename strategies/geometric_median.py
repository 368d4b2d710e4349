"""Geometric median (RFA): the point of least total distance to the uploads."""

from typing import Unpack

import torch

from byzflower.numerics.distances import distances_to_mixture
from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import one_thread
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.options import StrategyOptions
from byzflower.strategies.pre_aggregation.base import clip_factors
from byzflower.strategies.result import AggregationResult, Gradients, check

# Steps end when one is this short relative to the rows' distances, or after this many.
TOLERANCE = 1e-6
_MOST_STEPS = 10_000
# Float64 distances determine a row's direction if the others' distances are at least this share of its own.
_REACH = 1e9


@one_thread()
def geometric_median(
    gradients: Gradients, weights: torch.Tensor | None = None, iterations: int | None = None, nu: float = 1e-6
) -> AggregationResult:
    """Approximate the weighted geometric median by smoothed Weiszfeld steps (RFA; Pillutla et al., 2022).

    From the weighted mean z, a_i = w_i / max(nu, ||x_i - z||), z = sum a_i x_i / sum a_i. As z is always a
    mixture of rows, pairwise distances are all that the steps need. A step reduces the pull of far rows with
    a share p of the weight by a factor p / (1 - p) only, so a fixed number of steps does not bound it.

    Args:
        gradients: (n, d) pseudo-gradients.
        weights: (n,) non-negative, sums to 1; uniform by default.
        iterations: T, not negative; default as many as it takes until one is shorter than a millionth of
            the (harmonic) mean distance of the rows.
        nu: smallest distance that a weight is divided by, positive.

    Raises:
        TooFewClients: n < 1.
        ValueError: `iterations` or `nu` out of range.
    """
    rows = Rows.of(gradients)
    check_options(iterations, nu)
    if weights is None:
        weights = torch.full((rows.n,), 1 / rows.n, dtype=torch.float64, device=rows.device)
    reach = _reach(rows.squared_distances.sqrt(), weights, nu)
    mixture = _weiszfeld(
        (rows if reach is None else rows.mixed(reach)).squared_distances, weights, iterations, nu
    )
    if reach is not None:
        mixture = reach.T @ mixture
    return AggregationResult(rows.combine(mixture), weights=mixture)


def _weiszfeld(
    distances: torch.Tensor, weights: torch.Tensor, iterations: int | None, nu: float
) -> torch.Tensor:
    """The median as a mixture (n,) of points, from their (n, n) squared distances and (n,) weights."""
    mixture = weights
    for _ in range(_MOST_STEPS if iterations is None else iterations):
        away = distances_to_mixture(distances, mixture).sqrt()
        last, mixture = mixture, weights / away.clamp(min=nu)
        mixture = mixture / mixture.sum()
        if iterations is None and ((mixture - last).abs() @ away) <= TOLERANCE * (mixture @ away):
            break
    return mixture


def _reach(distances: torch.Tensor, weights: torch.Tensor, nu: float) -> torch.Tensor | None:
    """Mixing matrix (n, n) that moves rows too far away for float64 towards the middle row; None if none is.

    Moved to a billion times the distance that most are within, they pull as before: of far rows, only the
    direction matters.
    """
    middle = int((distances @ weights).argmin())
    ascending, order = distances[middle].sort()
    most = int((weights[order].cumsum(0) < weights.sum() / 2).sum())
    limit = _REACH * max(float(ascending[most]), nu)
    if ascending[-1] <= limit:
        return None
    factors = clip_factors(distances[middle], limit)
    reach = factors.diag()
    reach[:, middle] += 1 - factors
    return reach


def check_options(iterations: int | None, nu: float) -> None:
    """Raise ValueError for options of (item) geometric medians out of their range."""
    check(iterations is None or iterations >= 0, "iterations must not be negative", iterations)
    check(nu > 0, "nu must be positive", nu)


class GeometricMedian(RobustStrategy):
    """Geometric median of the uploads by smoothed Weiszfeld steps (RFA), weighted by num-examples."""

    def __init__(
        self, iterations: int | None = None, nu: float = 1e-6, **options: Unpack[StrategyOptions]
    ) -> None:
        """Make the strategy.

        Args:
            iterations: T: 8 in STRIKE, 3 in ROP; default until it has converged, as far rows need.
            nu: smallest distance that a weight is divided by, positive.
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        check_options(iterations, nu)
        self.iterations = iterations
        self.nu = nu

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `geometric_median`."""
        return geometric_median(gradients, weights, self.iterations, self.nu)
