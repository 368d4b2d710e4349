"""Multi-Krum: the mean of the uploads closest to their neighbours."""

from typing import Unpack

import torch

from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import one_thread
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.krum import best_rows, krum_scores
from byzflower.strategies.options import StrategyOptions
from byzflower.strategies.result import (
    AggregationResult,
    Gradients,
    NumByzantine,
    average,
    check,
    check_num_byzantine,
    require,
)


@one_thread()
def multi_krum(
    gradients: Gradients,
    num_byzantine: int,
    num_selected: int | None = None,
    weights: torch.Tensor | None = None,
) -> AggregationResult:
    """Average the m rows of least Krum score (Blanchard et al., 2017), on squared distances.

    Args:
        gradients: (n, d) pseudo-gradients.
        num_byzantine: f.
        num_selected: m in [1, n], default n - f.
        weights: (n,) weights of the final average, default uniform. Selection ignores them.

    Raises:
        TooFewClients: n <= 2f + 2, or m > n.
    """
    rows = Rows.of(gradients)
    n = rows.n
    check_num_byzantine(num_byzantine)
    require(n > 2 * num_byzantine + 2, "MultiKrum", "n > 2f + 2", n, num_byzantine)
    m = n - num_byzantine if num_selected is None else num_selected
    check(m >= 1, "num_selected must be at least 1", m)
    require(m <= n, "MultiKrum", f"n >= num_selected={m}", n)
    selected = best_rows(krum_scores(rows.squared_distances, num_byzantine), m)
    return average(rows, selected, weights)


class MultiKrum(RobustStrategy):
    """Mean of the n-f uploads with the smallest distances to their n-f-2 nearest neighbours."""

    def __init__(
        self,
        num_byzantine: NumByzantine = 0,
        num_selected: int | None = None,
        weighted: bool = False,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            num_byzantine: f, or the fraction of the clients that replied.
            num_selected: m, how many uploads to average; default n - f.
            weighted: weight the final average by num-examples (which clients report themselves).
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        self.num_byzantine = num_byzantine
        self.num_selected = num_selected
        self.weighted = weighted

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `multi_krum`."""
        f = self.count_byzantine(gradients)
        return multi_krum(gradients, f, self.num_selected, weights if self.weighted else None)
