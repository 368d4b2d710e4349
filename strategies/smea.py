"""Smallest maximum eigenvalue averaging."""

import torch

from byzflower.numerics.distances import gram_about_mixture
from byzflower.numerics.rows import Rows
from byzflower.numerics.subsets import cheapest_subset
from byzflower.numerics.threads import one_thread
from byzflower.strategies.best_subset import BestSubsetStrategy
from byzflower.strategies.result import (
    AggregationResult,
    Gradients,
    average,
    check,
    check_num_byzantine,
    require,
)

# Eigenvalues take time cubic in the rows, so larger subsets count as several of this size.
_ROWS = 64


@one_thread()
def smea(gradients: Gradients, num_byzantine: int, max_subsets: int = 20_000) -> AggregationResult:
    """Average the n-f rows whose covariance has the least top eigenvalue (Allouah et al., 2023).

    Args:
        gradients: (n, d) pseudo-gradients.
        num_byzantine: f.
        max_subsets: up to so many subsets are all tried; if there are more, only every row with its
            nearest ones. Of s > 64 rows a subset counts as (s / 64)^3, so by default all are tried for
            n = 20 and f <= 5, n = 50 and f <= 3, n = 100 and f <= 2, n = 200 and f = 1.

    Returns:
        The aggregate, the rows selected, and ``info["exact"]``: 1 if all subsets were tried, else 0.

    Raises:
        TooFewClients: n <= f.
        ValueError: `max_subsets` is negative.
    """
    rows, f = Rows.of(gradients), num_byzantine
    check_num_byzantine(f)
    check(max_subsets >= 0, "max_subsets must not be negative", max_subsets)
    require(rows.n > f, "SMEA", "n > f", rows.n, f)
    distances = rows.squared_distances

    def cost(subsets: torch.Tensor) -> torch.Tensor:
        # The covariance has the eigenvalues of the centred Gram matrix, divided by the number of rows.
        equal = torch.full_like(subsets, 1, dtype=torch.float64) / subsets.shape[1]
        among = distances[subsets[:, :, None], subsets[:, None, :]]
        eigenvalues: torch.Tensor = torch.linalg.eigvalsh(gram_about_mixture(among, equal))
        return eigenvalues[:, -1:]

    size = rows.n - f
    selected, exact = cheapest_subset(distances, size, cost, max_subsets, max(1.0, (size / _ROWS) ** 3))
    return average(rows, selected, info={"exact": float(exact)})


class SMEA(BestSubsetStrategy):
    """Mean of the n-f uploads whose covariance has the smallest top eigenvalue."""

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `smea`."""
        return smea(gradients, self.count_byzantine(gradients), self.max_subsets)
