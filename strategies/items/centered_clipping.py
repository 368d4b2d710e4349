"""Centered clipping of each item's rows about its last aggregate."""

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from byzflower.numerics.item_rows import ItemRows
from byzflower.numerics.rows import Rows
from byzflower.strategies.centered_clipping import _check_options, centered_clipping
from byzflower.strategies.items.base import ItemOptions, ItemResult, ItemStrategy
from byzflower.strategies.pre_aggregation.base import clip_factors
from byzflower.strategies.result import AggregationResult


def item_centered_clipping(
    rows: ItemRows, reference: torch.Tensor, tau: float = 10.0, iterations: int = 1
) -> ItemResult:
    """Move every item's reference by the mean of the clipped differences to it (see `centered_clipping`).

    Args:
        rows: of k items.
        reference: (k, d), one for each item.
        tau: clipping radius, positive.
        iterations: at least 1.
    """
    center = reference
    for _ in range(iterations):
        steps = clip_factors(rows.squared_distances_to(center).sqrt_(), tau)
        steps /= rows.counts.double()[rows.place]
        kept = 1 - rows.item_sums(steps)
        center = (center * kept[:, None]).float() + rows.totals(steps)
    return ItemResult(center)


class ItemCenteredClipping(ItemStrategy):
    """Per item, its last aggregate plus the mean of the rows' differences to it, clipped to radius tau."""

    def __init__(self, tau: float = 10.0, iterations: int = 1, **options: Unpack[ItemOptions]) -> None:
        """Make the strategy.

        Args:
            tau: clipping radius, positive.
            iterations: L, at least 1.
            options: see `ItemStrategy`.
        """
        super().__init__(**options)
        _check_options(tau, iterations)
        self.tau = tau
        self.iterations = iterations
        self.previous: torch.Tensor = torch.empty(0)  # (m, d): every item's own last aggregate
        self.previous_dense: torch.Tensor | None = None

    def aggregate_items(self, rows: ItemRows) -> ItemResult:
        """Apply `item_centered_clipping` about each item's last aggregate, 0 before the first."""
        if len(self.previous) == 0:
            self.previous = torch.zeros(self.sent.layout.shapes[0])
        return item_centered_clipping(rows, self.previous[rows.items], self.tau, self.iterations)

    @override
    def remember_items(self, items: NDArray[np.int64], gradients: NDArray[np.float32]) -> None:
        self.previous[items] = torch.from_numpy(gradients)

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `centered_clipping` about the last aggregate."""
        result = centered_clipping(gradients, self.previous_dense, self.tau, self.iterations)
        self.previous_dense = result.gradient
        return result

    @override
    def state_dict(self) -> dict[str, NDArray[Any]]:
        dense = np.empty(0) if self.previous_dense is None else self.previous_dense.numpy()
        return {**super().state_dict(), "previous": self.previous.numpy(), "previous_dense": dense}

    @override
    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        super().load_state_dict(state)
        self.previous = torch.from_numpy(np.array(state["previous"]))
        dense = torch.from_numpy(np.array(state["previous_dense"]))
        self.previous_dense = dense if len(dense) else None
