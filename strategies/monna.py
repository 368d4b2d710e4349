"""MoNNA: the nearest neighbours of one trusted upload."""

from typing import Unpack

import torch

from byzflower.numerics.columns import column_median
from byzflower.numerics.rows import Rows
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.krum import best_rows
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


def monna(gradients: Gradients, num_byzantine: int, trusted: int | None = None) -> AggregationResult:
    """Average the n-f rows closest to a trusted one, itself included (Farhadkhani et al., 2023).

    Args:
        gradients: (n, d) pseudo-gradients.
        num_byzantine: f.
        trusted: index of the trusted row; default the one nearest to the coordinate-wise median.

    Raises:
        TooFewClients: n <= f.
        ValueError: `trusted` is not in [0, n).
    """
    rows, f = Rows.of(gradients), num_byzantine
    check_num_byzantine(f)
    require(rows.n > f, "MoNNA", "n > f", rows.n, f)
    if trusted is None:
        trusted = int(rows.squared_distances_to(column_median(rows)).argmin())
    check(0 <= trusted < rows.n, f"trusted must be in [0, {rows.n})", trusted)
    distances = rows.squared_distances_to(rows.row(trusted))
    distances[trusted] = -1  # before any row equal to it
    return average(rows, best_rows(distances, rows.n - f))


class MoNNA(RobustStrategy):
    """Mean of the n-f uploads closest to a trusted client's, or to the one nearest to the median."""

    def __init__(
        self,
        num_byzantine: NumByzantine = 0,
        trusted: int | None = None,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            num_byzantine: f, or the fraction of the clients that replied.
            trusted: id of the trusted client. In rounds without it, and after bucketing, which leaves
                nobody's upload as it was, the upload nearest to the median takes its place.
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        self.num_byzantine = num_byzantine
        self.trusted = trusted

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `monna`."""
        clients = self.last_round.clients
        known = self.trusted in clients and gradients.n == len(clients)
        trusted = clients.index(self.trusted) if known and self.trusted is not None else None
        return monna(gradients, self.count_byzantine(gradients), trusted)
