"""Geometric median of each item's rows."""

from typing import Unpack

import torch

from byzflower.numerics.item_rows import ItemRows
from byzflower.numerics.rows import Rows
from byzflower.strategies.geometric_median import TOLERANCE, check_options, geometric_median
from byzflower.strategies.items.base import ItemOptions, ItemResult, ItemStrategy
from byzflower.strategies.result import AggregationResult

# Enough to converge with four attackers among nine, however far away.
_MOST_STEPS = 1000


def item_geometric_median(rows: ItemRows, iterations: int | None = None, nu: float = 1e-6) -> ItemResult:
    """Smoothed Weiszfeld steps for every item, by default to convergence: see `geometric_median`."""
    return ItemResult(rows.map(lambda values: _medians(values, iterations, nu)))


def _medians(values: torch.Tensor, iterations: int | None, nu: float) -> torch.Tensor:
    """Geometric medians of c rows for each of b items: (c, b, d) -> (b, d)."""
    rows = values.double().transpose(0, 1).contiguous()
    medians = rows.mean(dim=1)
    left = torch.arange(len(rows))  # the items that still move
    for _ in range(_MOST_STEPS if iterations is None else iterations):
        center = medians[left]
        away = torch.cdist(rows, center[:, None], compute_mode="donot_use_mm_for_euclid_dist").squeeze(2)
        shares = 1 / away.clamp(min=nu)
        shares /= shares.sum(dim=1, keepdim=True)
        moved = torch.bmm(shares[:, None], rows).squeeze(1)
        medians[left] = moved
        if iterations is None:
            steps = torch.linalg.vector_norm(moved - center, dim=1)
            going = steps > TOLERANCE * (shares * away).sum(dim=1)
            if not going.all():
                left, rows = left[going], rows[going]
            if len(left) == 0:
                break
    return medians.float()


class ItemRFA(ItemStrategy):
    """Per item, the geometric median of the rows by smoothed Weiszfeld steps (RFA)."""

    def __init__(
        self, iterations: int | None = None, nu: float = 1e-6, **options: Unpack[ItemOptions]
    ) -> None:
        """Make the strategy.

        Args:
            iterations: T, not negative; default until it has converged, as far rows need.
            nu: smallest distance that a weight is divided by, positive.
            options: see `ItemStrategy`.
        """
        super().__init__(**options)
        check_options(iterations, nu)
        self.iterations = iterations
        self.nu = nu

    def aggregate_items(self, rows: ItemRows) -> ItemResult:
        """Apply `item_geometric_median`."""
        return item_geometric_median(rows, self.iterations, self.nu)

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `geometric_median`, unweighted like the items."""
        return geometric_median(gradients, None, self.iterations, self.nu)
