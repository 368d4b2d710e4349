"""Nearest-neighbour mixing: every upload becomes the mean of those around it."""

from dataclasses import dataclass

import torch

from byzflower.numerics.distances import nearest_rows
from byzflower.numerics.rows import Rows
from byzflower.strategies.pre_aggregation.base import PreAggregation, resolve_byzantine
from byzflower.strategies.result import NumByzantine, require


@dataclass(frozen=True)
class NearestNeighborMixing(PreAggregation):
    """Each upload becomes the mean of its n-f nearest ones, itself included.

    Allouah et al. (2023). Of equally near ones the lower indices are taken, but always itself.

    Attributes:
        num_byzantine: f, or a fraction; default that of the rule.
    """

    num_byzantine: NumByzantine | None = None

    def apply(self, rows: Rows, num_byzantine: NumByzantine | None = None, seed: int = 0) -> Rows:
        """Mix each row with its nearest ones.

        Raises:
            TooFewClients: n <= f.
        """
        f = resolve_byzantine("NearestNeighborMixing", self.num_byzantine, num_byzantine, rows)
        require(rows.n > f, "NearestNeighborMixing", "n > f", rows.n, f)
        nearest = nearest_rows(rows.squared_distances, rows.n - f)
        return rows.mixed(torch.zeros_like(rows.squared_distances).scatter_(1, nearest, 1 / (rows.n - f)))
