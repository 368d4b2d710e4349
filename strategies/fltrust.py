"""FLTrust: uploads count as far as they agree with a gradient on the server's own data."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import torch
from numpy.typing import NDArray

from byzflower.strategies.base import RobustStrategy, StrategyOptions
from byzflower.strategies.result import AggregationResult, Gradients, check
from byzflower.strategies.rows import Rows

# From the model's arrays to its pseudo-gradient, as arrays of the same shapes: global minus locally trained.
RootGradient = Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]]


def fltrust(gradients: Gradients, root_gradient: torch.Tensor) -> AggregationResult:
    """Average rows rescaled to the root gradient's norm, weighted by relu(cosine to it) (Cao et al., 2021).

    If no row agrees with the root gradient at all, the aggregate is zero: the model stays.

    Args:
        gradients: (n, d) pseudo-gradients.
        root_gradient: (d,) the server's own pseudo-gradient.

    Returns:
        The aggregate, and the rows' weights in it, rescaling included.

    Raises:
        TooFewClients: n < 1.
        ValueError: the root gradient has another shape.
    """
    rows = Rows.of(gradients)
    check(root_gradient.shape == (rows.d,), f"root_gradient must have shape ({rows.d},)", root_gradient.shape)
    root_norm = torch.linalg.vector_norm(root_gradient, dtype=torch.float64)
    norms = rows.squared_norms.sqrt()
    agrees = rows.products(root_gradient)
    trust = torch.where(agrees > 0, agrees / (norms * root_norm), 0.0)
    if trust.sum() == 0:
        return AggregationResult(root_gradient.new_zeros(rows.d, dtype=rows.dtype), weights=trust)
    weights = torch.where(trust > 0, trust / trust.sum() * root_norm / norms, 0.0)
    return AggregationResult(rows.combine(weights), weights=weights)


class FLTrust(RobustStrategy):
    """Mean of uploads rescaled to, and weighted by their cosine with, a gradient on the server's data."""

    def __init__(
        self, root_gradient: RootGradient | torch.Tensor | None = None, **options: Unpack[StrategyOptions]
    ) -> None:
        """Make the strategy.

        Args:
            root_gradient: makes the server's pseudo-gradient (global arrays minus those trained on the root
                data) from the global model's arrays, every round; or that vector itself, (d,), for good.
                Required: without it every round is an error.
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        self.root_gradient = root_gradient

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `fltrust`.

        Raises:
            ValueError: there is no `root_gradient`, or not of the model's shapes.
        """
        root = self._root()
        return fltrust(gradients, root.to(gradients.device, gradients.dtype))

    def _root(self) -> torch.Tensor:
        if self.root_gradient is None:
            raise ValueError(
                "FLTrust needs root_gradient, a function or tensor that only Python can give: "
                "FLTrust(root_gradient=...)"
            )
        if isinstance(self.root_gradient, torch.Tensor):
            return self.root_gradient
        layout = self._require_layout()
        arrays = list(self.root_gradient(layout.arrays(self._global)))
        shapes = tuple(tuple(array.shape) for array in arrays)
        check(shapes == layout.shapes, f"root_gradient must return arrays of shapes {layout.shapes}", shapes)
        return torch.from_numpy(layout.row(arrays)[: layout.d])
