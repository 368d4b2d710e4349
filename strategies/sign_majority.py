"""Majority vote on signs."""

from typing import Unpack

import torch

from byzflower.numerics.rows import Rows
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.options import StrategyOptions
from byzflower.strategies.result import AggregationResult, Gradients, check


def sign_majority(gradients: Gradients, step: float = 1.0) -> AggregationResult:
    """Per coordinate, the sign that most rows have, times `step` (Bernstein et al., 2019); a tie is zero.

    Args:
        gradients: (n, d) pseudo-gradients.
        step: length of the step in every coordinate, positive.

    Raises:
        TooFewClients: n < 1.
        ValueError: `step` is not positive.
    """
    rows = Rows.of(gradients)
    check(step > 0, "step must be positive", step)
    out = torch.empty(rows.d, dtype=rows.dtype, device=rows.device)

    def work(block: torch.Tensor, columns: slice) -> None:
        out[columns] = block.sign().sum(dim=0).sign_().mul_(step)

    rows.map(work)
    return AggregationResult(out)


class SignMajority(RobustStrategy):
    """The sign of the majority in every coordinate, times a step size."""

    def __init__(self, step: float = 0.001, **options: Unpack[StrategyOptions]) -> None:
        """Make the strategy.

        Args:
            step: length of the step in every coordinate, positive; multiplied by `server_lr`.
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        check(step > 0, "step must be positive", step)
        self.step = step

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `sign_majority`."""
        return sign_majority(gradients, self.step)
