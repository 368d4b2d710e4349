"""Krum: the one upload closest to its neighbours."""

import torch

from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import one_thread
from byzflower.strategies.base import BoundedStrategy
from byzflower.strategies.result import (
    AggregationResult,
    Gradients,
    average,
    check_num_byzantine,
    require,
)


def krum_scores(distances: torch.Tensor, num_byzantine: int) -> torch.Tensor:
    """Sum of the n-f-2 smallest squared distances from each row to the others.

    Args:
        distances: (n, n) squared distances.
        num_byzantine: f, with n - f - 2 >= 1.

    Returns:
        (n,) scores, least is best.
    """
    return nearest_sums(distances, len(distances) - num_byzantine - 2)


def nearest_sums(distances: torch.Tensor, count: int) -> torch.Tensor:
    """Sum of the `count` smallest distances (all, if fewer) from each row to the others: (n, n) -> (n,)."""
    n = len(distances)
    others = distances.clone().fill_diagonal_(torch.inf)
    return others.sort(dim=1).values[:, : min(count, n - 1)].sum(dim=1)


def best_rows(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Boolean (n,) mask of the `count` least scores; ties go to the lower index."""
    order = torch.sort(scores, stable=True).indices
    selected = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    selected[order[:count]] = True
    return selected


@one_thread()
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


class Krum(BoundedStrategy):
    """The single upload with the smallest distances to its n-f-2 nearest neighbours."""

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `krum`."""
        return krum(gradients, self.count_byzantine(gradients))
