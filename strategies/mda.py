"""Minimum-diameter averaging."""

import torch

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


@one_thread()
def mda(gradients: Gradients, num_byzantine: int, max_subsets: int = 20_000) -> AggregationResult:
    """Average the n-f rows of least diameter (El Mhamdi et al., 2018).

    One pair of rows is the diameter of many subsets; of these the one with the least sum of squared
    distances is taken. Where not all subsets are tried, the diameter found is at most twice the least.

    Args:
        gradients: (n, d) pseudo-gradients.
        num_byzantine: f.
        max_subsets: up to so many subsets are all tried; if there are more, only every row with its
            nearest ones.

    Returns:
        The aggregate, the rows selected, and ``info["exact"]``: 1 if all subsets were tried, else 0.

    Raises:
        TooFewClients: n <= f.
        ValueError: `max_subsets` is negative.
    """
    rows, f = Rows.of(gradients), num_byzantine
    check_num_byzantine(f)
    check(max_subsets >= 0, "max_subsets must not be negative", max_subsets)
    require(rows.n > f, "MDA", "n > f", rows.n, f)
    distances = rows.squared_distances

    def cost(subsets: torch.Tensor) -> torch.Tensor:
        among = distances[subsets[:, :, None], subsets[:, None, :]].flatten(1)
        return torch.stack([among.amax(dim=1), among.sum(dim=1)], dim=1)

    selected, exact = cheapest_subset(distances, rows.n - f, cost, max_subsets)
    return average(rows, selected, info={"exact": float(exact)})


class MDA(BestSubsetStrategy):
    """Mean of the n-f uploads of least diameter."""

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `mda`."""
        return mda(gradients, self.count_byzantine(gradients), self.max_subsets)
