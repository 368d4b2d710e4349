"""FLTrust: uploads are weighted by their agreement with a gradient on the server's own data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.rows import Rows, TooFewClients
from byzflower.numerics.threads import one_thread
from byzflower.strategies.base import RobustStrategy
from byzflower.strategies.options import StrategyOptions
from byzflower.strategies.result import AggregationResult, Gradients, check

RootUpload = Callable[[int, list[NDArray[Any]]], Sequence[NDArray[Any]]]


@one_thread()
def fltrust(gradients: Gradients, root_gradient: torch.Tensor) -> AggregationResult:
    """Average rows rescaled to the root gradient's norm, weighted by relu(cosine to it) (Cao et al., 2021).

    If no row agrees with the root gradient at all, the aggregate is zero: the model stays.

    Args:
        gradients: (n, d) pseudo-gradients.
        root_gradient: (d,) the server's own pseudo-gradient, finite.

    Returns:
        The aggregate, and the rows' weights in it, rescaling included.

    Raises:
        TooFewClients: n < 1.
        ValueError: the root gradient has another shape.
    """
    rows = Rows.of(gradients)
    shape = tuple(root_gradient.shape)
    check(shape == (rows.d,), f"root_gradient must have shape ({rows.d},)", shape)
    root_norm = torch.linalg.vector_norm(root_gradient, dtype=torch.float64)
    norms = rows.squared_norms.sqrt()
    agrees = rows.products(root_gradient)
    trust = torch.where(agrees > 0, agrees / (norms * root_norm), 0.0)
    weights = torch.where(trust > 0, trust / trust.sum() * root_norm / norms, 0.0)
    return AggregationResult(rows.combine(weights), weights=weights)


class FLTrust(RobustStrategy):
    """Mean of uploads rescaled to, and weighted by their cosine with, a gradient on the server's data."""

    def __init__(self, root_upload: RootUpload, **options: Unpack[StrategyOptions]) -> None:
        """Make the strategy.

        Args:
            root_upload: called once a round as ``root_upload(server_round, arrays)`` with the global model's
                arrays, in order; returns what a benign client that holds the server's own, clean data
                would upload: with ``upload="weights"`` the arrays of the model trained there.
            options: see `RobustStrategy`.
        """
        super().__init__(**options)
        self.root_upload = root_upload
        self._root_gradient: torch.Tensor | None = None

    def set_global(self, server_round: int, arrays: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Begin a round; its root gradient is computed when it is needed."""
        self._root_gradient = None
        return super().set_global(server_round, arrays)

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `fltrust`.

        Raises:
            TooFewClients: the root upload is not finite; the round is skipped.
            ValueError: it does not have the model's shapes.
        """
        if self._root_gradient is None:
            self._root_gradient = self._make_root_gradient()
        return fltrust(gradients, self._root_gradient.to(gradients.device, gradients.dtype))

    def _make_root_gradient(self) -> torch.Tensor:
        layout, start = self.sent
        arrays = self.root_upload(self.last_round.round, layout.arrays(start.copy()))
        shapes = tuple(np.shape(array) for array in arrays)
        check(shapes == layout.shapes, f"root_upload must return arrays of shapes {layout.shapes}", shapes)
        row = self.upload.pseudo_gradient(layout.row([np.asarray(array) for array in arrays]), self.sent)
        if not np.isfinite(row).all():
            raise TooFewClients("the root upload is not finite")
        return torch.from_numpy(row[: layout.d])
