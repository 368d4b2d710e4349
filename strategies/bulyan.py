"""Bulyan: repeated Krum, then a mean around the median."""

import torch

from byzflower.numerics.columns import mean_around_median
from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import one_thread
from byzflower.strategies.base import BoundedStrategy
from byzflower.strategies.krum import best_rows, nearest_sums
from byzflower.strategies.result import AggregationResult, Gradients, check_num_byzantine, require


@one_thread()
def bulyan(gradients: Gradients, num_byzantine: int) -> AggregationResult:
    """Select n-2f rows by repeated Krum; per coordinate average the n-4f values closest to their median.

    El Mhamdi et al. (2018). After each choice the rows that remain, r of them, are scored anew by their r-f-2
    (at the end, when there are fewer: at least one) nearest neighbours among themselves.

    Args:
        gradients: (n, d) pseudo-gradients.
        num_byzantine: f.

    Returns:
        The aggregate, and the n-2f rows selected.

    Raises:
        TooFewClients: n < 4f + 3.
    """
    rows, f = Rows.of(gradients), num_byzantine
    check_num_byzantine(f)
    require(rows.n >= 4 * f + 3, "Bulyan", "n >= 4f + 3", rows.n, f)
    theta = rows.n - 2 * f
    selected = _select(rows.squared_distances, theta, f)
    gradient = mean_around_median(rows, theta - 2 * f, selected.nonzero().squeeze(1))
    return AggregationResult(gradient, selected)


def _select(distances: torch.Tensor, count: int, f: int) -> torch.Tensor:
    """Boolean (n,): the `count` rows that Krum selects one after the other, without replacement."""
    remaining = torch.ones(len(distances), dtype=torch.bool, device=distances.device)
    for _ in range(count):
        left = remaining.nonzero().squeeze(1)
        scores = nearest_sums(distances[left][:, left], max(1, len(left) - f - 2))
        remaining[left[best_rows(scores, 1)]] = False
    return ~remaining


class Bulyan(BoundedStrategy):
    """Repeated Krum selects n-2f uploads; coordinate-wise mean of the n-4f values closest to their median."""

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `bulyan`."""
        return bulyan(gradients, self.count_byzantine(gradients))
