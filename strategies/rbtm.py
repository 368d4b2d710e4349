"""Reliable-broadcast trimmed mean."""

import torch

from byzflower.numerics.columns import mean_of_middle
from byzflower.numerics.rows import Rows
from byzflower.strategies.base import BoundedStrategy
from byzflower.strategies.result import AggregationResult, Gradients, check_num_byzantine, require


def rbtm(gradients: Gradients, num_byzantine: int) -> AggregationResult:
    """Per coordinate, average the n-2f middle values (El Mhamdi et al., 2021).

    With a trusted server the reliable broadcast is trivial, so the result is that of `trimmed_mean`; papers
    report it under this name.

    Args:
        gradients: (n, d) pseudo-gradients.
        num_byzantine: f.

    Raises:
        TooFewClients: n <= 2f.
    """
    rows = Rows.of(gradients)
    check_num_byzantine(num_byzantine)
    require(rows.n > 2 * num_byzantine, "RBTM", "n > 2f", rows.n, num_byzantine)
    return AggregationResult(mean_of_middle(rows, num_byzantine, rows.n - num_byzantine))


class RBTM(BoundedStrategy):
    """Reliable-broadcast trimmed mean: with a trusted server, the mean of the n-2f middle values."""

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `rbtm`."""
        return rbtm(gradients, self.count_byzantine(gradients))
