"""Krum: the one upload closest to its neighbours."""

from typing import Unpack

import torch

from byzflower.strategies.base import RobustStrategy, StrategyOptions
from byzflower.strategies.result import (
    AggregationResult,
    Gradients,
    NumByzantine,
    average,
    check_num_byzantine,
    require,
)
from byzflower.strategies.rows import Rows


def krum_scores(distances: torch.Tensor, num_byzantine: int) -> torch.Tensor:
    """Sum of the n-f-2 smallest squared distances from each row to the others.

    Args:
        distances: (n, n) squared distances.
        num_byzantine: f, with n - f - 2 >= 1.

    Returns:
        (n,) scores, least is best.
    """
    n = len(distances)
    others = distances.clone().fill_diagonal_(torch.inf)
    return others.sort(dim=1).values[:, : n - num_byzantine - 2].sum(dim=1)


def best_rows(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Boolean (n,) mask of the `count` least scores; ties go to the lower index."""
    order = torch.sort(scores, stable=True).indices
    selected = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    selected[order[:count]] = True
    return selected


def krum(gradients: Gradients, num_byzantine: int) -> AggregationResult:
    """Return the row of least Krum score (Blanchard et al., 2017), on squared distances.

    Args:
        gradients: (n, d) pseudo-gradients.
        num_byzantine: f.

    Raises:
        TooFewClients: n <= 2f + 2.
    """
    rows = Rows.of(gradients)
    check_num_byzantine(num_byzantine)
    require(rows.n > 2 * num_byzantine + 2, "Krum", "n > 2f + 2", rows.n, num_byzantine)
    return average(rows, best_rows(krum_scores(rows.squared_distances, num_byzantine), 1))


class Krum(RobustStrategy):
    """The single upload with the smallest distances to its n-f-2 nearest neighbours."""

    def __init__(self, num_byzantine: NumByzantine = 0, **options: Unpack[StrategyOptions]) -> None:
        """Make the strategy.

        Args:
            num_byzantine: f, or the fraction of the clients that replied.
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        self.num_byzantine = num_byzantine

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `krum`."""
        return krum(gradients, self.count_byzantine(gradients))
