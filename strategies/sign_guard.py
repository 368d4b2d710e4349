"""SignGuard: norms in a band, and sign statistics in the largest cluster."""

from typing import Unpack

import numpy as np
import torch

from byzflower.numerics.columns import count_signs, middle_value
from byzflower.numerics.randomness import torch_generator
from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import map_blocks, one_thread
from byzflower.strategies.base import RememberingStrategy
from byzflower.strategies.options import StrategyOptions
from byzflower.strategies.pre_aggregation.base import clip_factors
from byzflower.strategies.result import AggregationResult, Gradients, check, uniform_over

_SAMPLED_COLUMNS = 1 << 13
# Mean shift needs a bandwidth; half of the distances being zero would give none.
_LEAST_BANDWIDTH = 1e-6


@one_thread()
def sign_guard(
    gradients: Gradients,
    lower: float = 0.1,
    upper: float = 3.0,
    fraction: float = 0.1,
    reference: torch.Tensor | None = None,
    seed: int = 0,
) -> AggregationResult:
    """Filter by norm and by sign statistics, clip to the median norm, average (SignGuard; Xu et al., 2022).

    Kept are the rows whose norm is within [lower, upper] times the median norm and that are in the largest
    cluster (mean shift, bandwidth from the median distance) of their fractions of positive, zero and negative
    values in a sample of the coordinates. If none is both, the norm alone decides, if need be nothing.

    Args:
        gradients: (n, d) pseudo-gradients.
        lower: L, not negative.
        upper: R, at least L.
        fraction: of the coordinates to sample, in (0, 1].
        reference: (d,) previous aggregate; the cosine to it is one more feature (SignGuard-Sim).
        seed: of the sample.

    Returns:
        The aggregate, the rows kept, and their weights, clipping included.

    Raises:
        TooFewClients: n < 1.
        ValueError: a parameter out of its range.
    """
    rows = Rows.of(gradients)
    _check_options(lower, upper, fraction)
    norms = rows.squared_norms.sqrt()
    middle = middle_value(norms)
    in_band = (norms >= lower * middle) & (norms <= upper * middle)
    in_cluster = _largest_cluster(_features(rows, norms, fraction, reference, seed))
    candidates = (in_band & in_cluster, in_band, torch.ones_like(in_band))
    selected = next(rows_kept for rows_kept in candidates if rows_kept.any())
    weights = uniform_over(selected) * clip_factors(norms, middle)
    return AggregationResult(rows.combine(weights), selected, weights)


def _check_options(lower: float, upper: float, fraction: float) -> None:
    check(0 <= lower <= upper, "lower and upper must be 0 <= lower <= upper", (lower, upper))
    check(0 < fraction <= 1, "fraction must be in (0, 1]", fraction)


def _features(
    rows: Rows, norms: torch.Tensor, fraction: float, reference: torch.Tensor | None, seed: int
) -> torch.Tensor:
    """(n, 3 or 4): fractions of positive, zero and negative values; cosine to the reference."""
    count = max(1, round(fraction * rows.d))
    sample = torch.randperm(rows.d, generator=torch_generator(seed, "signs"))[:count].sort().values
    sample = sample.to(rows.device)
    counts = map_blocks(lambda part: count_signs(rows.block(sample[part])), count, _SAMPLED_COLUMNS)
    features = list(torch.stack(counts).sum(dim=0) / count)
    if reference is not None:
        size = norms * torch.linalg.vector_norm(reference, dtype=torch.float64)
        features.append(torch.where(size > 0, rows.products(reference) / size, 0.0))
    return torch.stack(features, dim=1)


def _largest_cluster(features: torch.Tensor) -> torch.Tensor:
    """Boolean (n,); of clusters of equal size that of the lowest index."""
    if len(features) == 1:
        return torch.ones(1, dtype=torch.bool, device=features.device)
    # Imported here, as it takes a second that only this rule should cost.
    from sklearn.cluster import MeanShift, estimate_bandwidth
    from threadpoolctl import threadpool_limits

    points = features.cpu().numpy()
    with threadpool_limits(1):  # its many small steps would spend their time waiting for other threads
        bandwidth = max(float(estimate_bandwidth(points, quantile=0.5)), _LEAST_BANDWIDTH)
        labels = MeanShift(bandwidth=bandwidth).fit(points).labels_
    sizes = np.bincount(labels)[labels]  # of every row's cluster
    return torch.from_numpy(labels == labels[sizes.argmax()]).to(features.device)


class SignGuard(RememberingStrategy):
    """Mean of the uploads with ordinary norms and sign statistics, clipped to the median norm."""

    def __init__(
        self,
        lower: float = 0.1,
        upper: float = 3.0,
        fraction: float = 0.1,
        cosine: bool = False,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            lower: least norm, as a multiple of the median norm.
            upper: greatest norm, likewise.
            fraction: of the coordinates whose signs are looked at, sampled anew every round, in (0, 1].
            cosine: look at the cosine to the previous aggregate, too (SignGuard-Sim).
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        _check_options(lower, upper, fraction)
        self.lower = lower
        self.upper = upper
        self.fraction = fraction
        self.cosine = cosine

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `sign_guard`."""
        reference = self.previous if self.cosine else None
        seed = self.round_seed("signs")
        return sign_guard(gradients, self.lower, self.upper, self.fraction, reference, seed)
