"""Aksel: the mean of the uploads closest to the coordinate-wise median."""

import torch

from byzflower.numerics.columns import column_median, middle_value
from byzflower.numerics.rows import Rows
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.result import AggregationResult, Gradients, average


def aksel(gradients: Gradients) -> AggregationResult:
    """Average the rows no farther from the median than half of them are (Boussetta et al., 2021).

    Kept are those whose squared distance to the coordinate-wise median is at most the median of these
    distances. For even n, both medians are the means of the two middle values, so half of the rows stay.

    Args:
        gradients: (n, d) pseudo-gradients.

    Raises:
        TooFewClients: n < 1.
    """
    rows = Rows.of(gradients)
    distances = rows.squared_distances_to(column_median(rows))
    return average(rows, distances <= middle_value(distances))


class Aksel(RobustStrategy):
    """Mean of the half of the uploads that is closest to the coordinate-wise median."""

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `aksel`."""
        return aksel(gradients)
