"""Covariance-bound agnostic filter."""

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from byzflower.numerics.distances import gram_about_mixture
from byzflower.numerics.rows import Rows
from byzflower.numerics.threads import one_thread
from byzflower.strategies.base import BoundedStrategy
from byzflower.strategies.result import AggregationResult, Gradients, check_num_byzantine, require

# From so many rows on, finding the top eigenvector alone beats finding all.
_MANY_ROWS = 200


@one_thread()
def caf(gradients: Gradients, num_byzantine: int) -> AggregationResult:
    """Down-weight rows along the top eigenvector of their covariance (Allouah et al., 2025).

    Rows start with weight 1. Each time, a row's weight is multiplied by 1 - t_i / max t, where t_i is its
    squared projection on the top eigenvector of the weighted covariance (the maximum is over rows that have
    weight left), until the weight removed reaches 2f: benign rows may lose as much of it as the f others. Of
    all weighted means seen, the one whose covariance has the least top eigenvalue is returned.

    Args:
        gradients: (n, d) pseudo-gradients.
        num_byzantine: f.

    Returns:
        The aggregate, the rows' weights in it, and ``info["top_eigenvalue"]`` of their covariance.

    Raises:
        TooFewClients: n <= 2f.
    """
    rows, f = Rows.of(gradients), num_byzantine
    check_num_byzantine(f)
    require(rows.n > 2 * f, "CAF", "n > 2f", rows.n, f)
    weights = torch.ones(rows.n, dtype=torch.float64, device=rows.device)
    best, least = weights, torch.inf
    while weights.any():  # two rows that are left, alike, lose all at once
        eigenvalue, along = _top_direction(rows.squared_distances, weights)
        if eigenvalue < least:
            best, least = weights, eigenvalue
        if rows.n - float(weights.sum()) >= 2 * f or along.max() <= 0:
            break
        weights = weights * (1 - along / along.max())
    share = best / best.sum()
    return AggregationResult(rows.combine(share), weights=share, info={"top_eigenvalue": least})


def _top_direction(distances: torch.Tensor, weights: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Top eigenvalue of the weighted covariance, and squared projections on its eigenvector, up to a factor.

    Rows of weight zero are left out: their projections are given as zero.
    """
    left = (weights > 0).nonzero().squeeze(1)
    share = weights[left] / weights[left].sum()
    gram = gram_about_mixture(distances[left][:, left], share)
    roots = share.sqrt()
    value, vector = _top_eigenpair(roots[:, None] * gram * roots[None, :])
    along = torch.zeros_like(weights)
    along[left] = (gram @ (roots * vector)) ** 2
    return max(0.0, value), along


def _top_eigenpair(matrix: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Largest eigenvalue of a symmetric (k, k) matrix and its eigenvector, to machine precision."""
    k = len(matrix)
    if k >= _MANY_ROWS and bool(matrix.any()):
        product = LinearOperator(
            (k, k), lambda x: (matrix @ torch.from_numpy(x).to(matrix)).cpu().numpy(), dtype=float
        )
        try:
            values, vectors = eigsh(product, 1, which="LA", v0=np.linspace(1, 2, k))
            return float(values[0]), torch.from_numpy(vectors[:, 0]).to(matrix)
        except ArpackError:
            pass  # it has not converged
    every, directions = torch.linalg.eigh(matrix)
    return float(every[-1]), directions[:, -1]


class CAF(BoundedStrategy):
    """Covariance filter: uploads lose weight along the direction in which all differ most."""

    def aggregate(self, gradients: Rows, weights: torch.Tensor) -> AggregationResult:
        """Apply `caf`."""
        return caf(gradients, self.count_byzantine(gradients))
