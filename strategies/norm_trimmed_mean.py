"""Norm-trimmed mean: the mean of the uploads that are neither long nor short."""

import torch

from byzflower.numerics.rows import Rows
from byzflower.strategies.base import BoundedStrategy
from byzflower.strategies.krum import best_rows
from byzflower.strategies.result import AggregationResult, Gradients, average, check_num_byzantine, require


def norm_trimmed_mean(
    gradients: Gradients, num_byzantine: int, weights: torch.Tensor | None = None
) -> AggregationResult:
    """Average the rows without the f longest and the f shortest ("Trmean" of the A-RFRS paper).

    Args:
        gradients: (n, d) pseudo-gradients, or models.
        num_byzantine: f.
        weights: (n,) weights of the average, default uniform. Selection ignores them.

    Raises:
        TooFewClients: n <= 2f.
    """
    rows = Rows.of(gradients)
    n, f = rows.n, num_byzantine
    check_num_byzantine(f)
    require(n > 2 * f, "NormTrimmedMean", "n > 2f", n, f)
    order = torch.argsort(rows.squared_norms, stable=True)
    middle = torch.zeros(n, dtype=torch.float64, device=rows.device)
    middle[order[:f]] = 1
    middle[order[n - f :]] = 1
    return average(rows, best_rows(middle, n - 2 * f), weights)


class NormTrimmedMean(BoundedStrategy):
    """Mean of the uploads without the f of largest and the f of smallest norm."""

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `norm_trimmed_mean`."""
        return norm_trimmed_mean(gradients, self.count_byzantine(gradients))
