"""Robust-DPFL: two clusters of clients by the mean of their parameters."""

import torch

from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import Scratch
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.result import AggregationResult, Gradients, average, require


def robust_dpfl(gradients: Gradients, weights: torch.Tensor | None = None) -> AggregationResult:
    """Average the cluster of models with the higher mean parameter (Qi et al., 2024).

    As SafeSparse describes it. A client's score is the mean of its model's parameters. Rows are global
    minus local models, so that is minus the mean of its row, up to what all have in common. Two-means in one
    dimension is solved exactly: the scores are split where the sum of squares within the two parts is least.
    Equal scores are not split.

    Args:
        gradients: (n, d) pseudo-gradients.
        weights: (n,) weights of the final average, default uniform. Selection ignores them.

    Returns:
        The aggregate, the rows kept, their weights, and the mean score of either cluster.

    Raises:
        TooFewClients: n < 2.
    """
    rows = Rows.of(gradients)
    require(rows.n >= 2, "RobustDPFL", "n >= 2", rows.n)
    scratch = Scratch()

    def sums(block: torch.Tensor, columns: slice) -> torch.Tensor:  # row by row: equal rows must tie
        return scratch.like(block, torch.float64).copy_(block).sum(dim=1)

    scores = -rows.total(sums) / rows.d
    selected = scores >= _split(scores)
    info = {"kept_score": float(scores[selected].mean())}
    if not selected.all():
        info["dropped_score"] = float(scores[~selected].mean())
    return average(rows, selected, weights, info)


def _split(scores: torch.Tensor) -> torch.Tensor:
    """The least score of the upper cluster; the least of all if they are equal."""
    ordered = scores.sort().values
    # The between-cluster sum of squares of each split.
    count = torch.arange(1, len(scores), dtype=torch.float64, device=scores.device)
    centred = ordered - ordered.mean()
    between = centred.cumsum(0)[:-1] ** 2 * (1 / count + 1 / count.flip(0))
    return ordered[int(between.argmax()) + 1] if ordered[0] < ordered[-1] else ordered[0]


class RobustDPFL(RobustStrategy):
    """Mean, weighted by num-examples, of the cluster of models with the higher mean parameter."""

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `robust_dpfl`."""
        return robust_dpfl(gradients, weights)
