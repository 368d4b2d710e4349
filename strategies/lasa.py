"""LASA: sparsified uploads, averaged layer by layer over those that are ordinary there."""

from collections.abc import Sequence
from typing import Unpack

import torch

from byzflower.numerics.columns import count_signs, middle_value
from byzflower.numerics.rows import Rows
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.layers import combine_layers, split_layers
from byzflower.strategies.options import StrategyOptions
from byzflower.strategies.pre_aggregation import Sparsify
from byzflower.strategies.result import AggregationResult, Gradients, check, uniform_over

# Makes the median absolute deviation estimate a normal distribution's standard deviation.
_MAD_TO_STD = 1.4826


def lasa(
    gradients: Gradients,
    layers: Sequence[slice] = (),
    sparsity: float = 0.3,
    lambda_n: float = 1.0,
    lambda_d: float = 1.0,
) -> AggregationResult:
    """Average the sparsified rows, each layer over those that are ordinary there (LASA; Xu et al., 2025).

    A row is ordinary in a layer if its norm and its share of positive among nonzero values are both within a
    number of (robust) standard deviations, 1.4826 times the median absolute deviation, of the median. If no
    row is, the norm alone decides. The sparsified rows are averaged, as SafeSparse describes it.

    Args:
        gradients: (n, d) pseudo-gradients.
        layers: columns of each layer, covering all; default one layer.
        sparsity: fraction of the values of each row, the smallest, that becomes zero, in [0, 1).
        lambda_n: width of the band of norms, positive.
        lambda_d: width of the band of directions, positive.

    Returns:
        The aggregate, the rows kept in any layer, and their weights, averaged over columns.

    Raises:
        TooFewClients: n < 1.
        ValueError: a parameter out of its range.
    """
    _check_options(sparsity, lambda_n, lambda_d)
    rows = Sparsify(1 - sparsity).apply(Rows.of(gradients))
    parts = split_layers(rows, layers)
    return combine_layers(parts, [uniform_over(_ordinary(part, lambda_n, lambda_d)) for part in parts])


def _check_options(sparsity: float, lambda_n: float, lambda_d: float) -> None:
    check(0 <= sparsity < 1, "sparsity must be in [0, 1)", sparsity)
    check(lambda_n > 0, "lambda_n must be positive", lambda_n)
    check(lambda_d > 0, "lambda_d must be positive", lambda_d)


def _ordinary(layer: Rows, lambda_n: float, lambda_d: float) -> torch.Tensor:
    """Boolean (n,): the rows to average in one layer."""
    by_norm = _within(layer.squared_norms.sqrt(), lambda_n)
    both = by_norm & _within(_positive_share(layer), lambda_d)
    return both if both.any() else by_norm


def _within(values: torch.Tensor, width: float) -> torch.Tensor:
    """Boolean (n,): no farther from the median than `width` robust standard deviations; never all False."""
    deviations = (values - middle_value(values)).abs()
    # The nearest one always passes, however narrow the band.
    limit = torch.maximum(width * _MAD_TO_STD * middle_value(deviations), deviations.min())
    return deviations <= limit


def _positive_share(rows: Rows) -> torch.Tensor:
    """Share of positive among nonzero values, 1/2 if there are none: (n,)."""
    positive, _, negative = rows.total(lambda block, columns: count_signs(block))
    nonzero = positive + negative
    return torch.where(nonzero > 0, positive / nonzero, 0.5)


class LASA(RobustStrategy):
    """Layer by layer, mean of the sparsified uploads with an ordinary norm and share of positive values."""

    def __init__(
        self,
        sparsity: float = 0.3,
        lambda_n: float = 1.0,
        lambda_d: float = 1.0,
        **options: Unpack[StrategyOptions],
    ) -> None:
        """Make the strategy.

        Args:
            sparsity: fraction of each upload that becomes zero, in [0, 1).
            lambda_n: width of the band of norms in robust standard deviations: 1 or 2.
            lambda_d: width of the band of directions, likewise.
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        _check_options(sparsity, lambda_n, lambda_d)
        self.sparsity = sparsity
        self.lambda_n = lambda_n
        self.lambda_d = lambda_d

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `lasa` to the model's layers."""
        return lasa(gradients, self.layers, self.sparsity, self.lambda_n, self.lambda_d)
