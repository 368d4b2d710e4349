"""Clipping to a norm that the uploads themselves give."""

import math
from dataclasses import dataclass

from byzflower.numerics.rows import Rows
from byzflower.strategies.pre_aggregation.base import PreAggregation, clipped, resolve_byzantine
from byzflower.strategies.result import NumByzantine, require


@dataclass(frozen=True)
class AdaptiveClip(PreAggregation):
    """The k = floor(2(f/n)(n-f)) longest uploads are clipped to the norm of the next one (ARC).

    Allouah et al. (2025).

    Attributes:
        num_byzantine: f, or a fraction; default that of the rule.
    """

    num_byzantine: NumByzantine | None = None

    def apply(self, rows: Rows, num_byzantine: NumByzantine | None = None, seed: int = 0) -> Rows:
        """Clip the longest rows.

        Raises:
            TooFewClients: n <= f.
        """
        n = rows.n
        f = resolve_byzantine("AdaptiveClip", self.num_byzantine, num_byzantine, rows)
        require(n > f, "AdaptiveClip", "n > f", n, f)
        k = math.floor(2 * f * (n - f) / n)  # at most n/2, so that there is a next one
        return clipped(rows, rows.squared_norms.sort().values[n - 1 - k].sqrt())
