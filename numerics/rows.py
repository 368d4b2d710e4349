"""The rows that rules aggregate: a matrix, or what pre-aggregations make of one without copying it."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.distances import (
    finite_or_wide,
    mixed_distances,
    squared_distances,
    squared_lengths,
    with_point,
)
from byzflower.numerics.threads import Scratch, map_blocks, subnormals_as_zero

T = TypeVar("T")
Columns = slice | torch.Tensor

# Scalars in a block: 1 MiB of float32, which stays in the L2 cache while it is worked on.
_BLOCK_SCALARS = 1 << 18
# Where there is little to do but read, it pays to be called less often.
_WIDE_COLUMNS = 1 << 15


def view_of(array: NDArray[np.floating]) -> torch.Tensor:
    """A tensor on an array's memory, also if that is read-only as uploads are: not to be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


class TooFewClients(ValueError):
    """A rule's requirement on n and f does not hold; the message states the inequality."""


class Rows(ABC):
    """n rows of d scalars that are read by blocks of columns.

    Rules use nothing else, so they work alike on an (n, d) tensor and on rows that are linear
    combinations of another matrix's: those need no n x d copy, and their distances follow from
    distances computed once.

    Attributes:
        n: number of rows.
        d: number of columns.
        dtype: floating-point type of the values.
        device: where they are.
        num_clients: how many clients' uploads the rows were made of; n, or more after bucketing.
    """

    n: int
    d: int
    dtype: torch.dtype
    device: torch.device
    num_clients: int

    @staticmethod
    def of(gradients: "torch.Tensor | Rows") -> "Rows":
        """Rows of a matrix; rows are returned as they are.

        Raises:
            ValueError: not a two-dimensional floating-point tensor.
            TooFewClients: no rows.
        """
        return gradients if isinstance(gradients, Rows) else MatrixRows(gradients)

    def __len__(self) -> int:
        return self.n

    # -- what kinds of rows differ in ------------------------------------------------------------------

    @abstractmethod
    def block(self, columns: Columns) -> torch.Tensor:
        """The (n, c) values of some columns (a slice or indices), possibly a view: not to be modified."""

    @abstractmethod
    def part(self, columns: slice) -> "Rows":
        """The same rows with these columns only, e.g. one layer's."""

    @abstractmethod
    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """What (n,) weights of rows mean for the clients: (num_clients,)."""

    @abstractmethod
    def claims(self, weights: torch.Tensor) -> torch.Tensor:
        """Divide (num_clients,) weights of clients among the rows that they entered: (n,), sums to 1."""

    # -- what follows ----------------------------------------------------------------------------------

    def matrix(self) -> torch.Tensor:
        """All values, (n, d): a copy unless the rows are a matrix. Rules should not need it."""
        return self.block(slice(0, self.d))

    def map(self, work: Callable[[torch.Tensor, slice], T], width: int | None = None) -> list[T]:
        """Call `work(block, columns)` for all blocks of columns, on all cores; see `map_blocks`."""
        width = width or max(1, _BLOCK_SCALARS // self.n)
        return map_blocks(lambda columns: work(self.block(columns), columns), self.d, width)

    def total(
        self, work: Callable[[torch.Tensor, slice], torch.Tensor], width: int | None = None
    ) -> torch.Tensor:
        """Sum of `work(block, columns)` over all blocks of columns, in float64 and always the same order."""
        results = self.map(subnormals_as_zero()(work), width)
        total = results[0].double().clone()
        for result in results[1:]:
            total += result
        return total

    def combine(self, weights: torch.Tensor) -> torch.Tensor:
        """Sum of the rows with the given weights: (n,) -> (d,).

        Rows of weight zero never enter: where NaN or Inf times zero would, they are left out.
        """
        used = (weights != 0).nonzero().squeeze(1)
        share = _in_range(weights, self.dtype)
        few = 2 * len(used) < self.n
        out = torch.empty(self.d, dtype=self.dtype, device=self.device)

        def weigh(block: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
            return torch.mv(block.to(share.dtype).T, share)

        def work(block: torch.Tensor, columns: slice) -> None:
            total = None if few else weigh(block, share)  # zero times a number costs less than a copy
            if total is None or not torch.isfinite(total).all():
                total = weigh(block[used], share[used])
            out[columns] = total

        self.map(work, _WIDE_COLUMNS)
        return out

    def row(self, index: int) -> torch.Tensor:
        """A copy of one row, (d,)."""
        one = torch.zeros(self.n, dtype=torch.float64, device=self.device)
        one[index] = 1
        return self.combine(one)

    @cached_property
    def squared_distances(self) -> torch.Tensor:
        """Squared distances between the rows, float64 (n, n); see `distances.squared_distances`."""
        return squared_distances(self._block_for_distances, self.n, self.d, self.device)

    @cached_property
    def squared_norms(self) -> torch.Tensor:
        """Squared norms of the rows, float64 (n,)."""
        return self.squared_distances_to(None)

    def squared_distances_to(self, point: torch.Tensor | None) -> torch.Tensor:
        """Squared distances from the rows to a (d,) point (None: zero), float64 (n,)."""
        scratch = Scratch()

        def away(values: torch.Tensor, columns: slice) -> torch.Tensor:
            if point is None:
                return values
            if values.dtype != point.dtype:
                return values - point[columns]
            return torch.sub(values, point[columns], out=scratch.like(values))

        def work(block: torch.Tensor, columns: slice) -> torch.Tensor:
            return finite_or_wide(lambda values: squared_lengths(away(values, columns)), block)

        return self.total(work, _WIDE_COLUMNS)

    def products(self, point: torch.Tensor) -> torch.Tensor:
        """Inner products of the rows with a (d,) point, float64 (n,)."""
        scratch = Scratch()

        def work(block: torch.Tensor, columns: slice) -> torch.Tensor:
            wide = scratch.like(block, torch.float64).copy_(block)  # of nearly orthogonal rows little is left
            return wide @ point[columns].double()

        return self.total(work)

    def mixed(self, mixing: torch.Tensor) -> "MixedRows":
        """The rows W X, for W (m, n)."""
        return MixedRows(self, mixing)

    def _block_for_distances(self, columns: slice) -> torch.Tensor:
        return self.block(columns)


class MatrixRows(Rows):
    """The rows of an (n, d) tensor."""

    def __init__(self, matrix: torch.Tensor) -> None:
        if matrix.ndim != 2 or not matrix.is_floating_point():
            raise ValueError(
                f"gradients must be a floating-point (n, d) tensor, got {matrix.dtype} {tuple(matrix.shape)}"
            )
        if len(matrix) < 1:
            raise TooFewClients(f"aggregation needs n >= 1, got n={len(matrix)}")
        self._matrix = matrix
        self.n, self.d = matrix.shape
        self.dtype, self.device, self.num_clients = matrix.dtype, matrix.device, self.n

    def block(self, columns: Columns) -> torch.Tensor:
        """See `Rows`."""
        block: torch.Tensor = self._matrix[:, columns]
        return block

    def row(self, index: int) -> torch.Tensor:
        """See `Rows`."""
        return self._matrix[index].clone()

    def part(self, columns: slice) -> Rows:
        """See `Rows`."""
        return MatrixRows(self._matrix[:, columns])

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """See `Rows`."""
        return values

    def claims(self, weights: torch.Tensor) -> torch.Tensor:
        """See `Rows`."""
        return weights


class MixedRows(Rows):
    """W X: combinations of other rows, never written out."""

    base: Rows
    mixing: torch.Tensor

    def __init__(self, base: Rows, mixing: torch.Tensor) -> None:
        """Mix.

        Args:
            base: m rows X.
            mixing: (n, m) W, non-negative float64. Mixtures of mixtures are made mixtures of the
                original rows.
        """
        if isinstance(base, MixedRows):
            mixing = mixing @ base.mixing
            base = base.base
        self.base, self.mixing = base, mixing
        self.n, self.d = len(mixing), base.d
        self.dtype, self.device, self.num_clients = base.dtype, base.device, base.num_clients
        self._weights = _in_range(mixing, self.dtype)
        diagonal = self.n == base.n and bool((mixing == mixing.diagonal().diag()).all())
        self._scales = self._weights.diagonal()[:, None] if diagonal else None

    @subnormals_as_zero()
    def block(self, columns: Columns) -> torch.Tensor:
        """See `Rows`."""
        values = self.base.block(columns).to(self._weights.dtype)
        return (self._weights @ values if self._scales is None else values * self._scales).to(self.dtype)

    def part(self, columns: slice) -> Rows:
        """See `Rows`."""
        return MixedRows(self.base.part(columns), self.mixing)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """See `Rows`."""
        return self.base.spread(self.mixing.T @ values)

    def claims(self, weights: torch.Tensor) -> torch.Tensor:
        """See `Rows`."""
        weights = self.base.claims(weights)
        entered = self.mixing.sum(dim=0)
        claims = self.mixing @ torch.where(entered > 0, weights / entered, 0.0)
        return claims / claims.sum()

    def combine(self, weights: torch.Tensor) -> torch.Tensor:
        """See `Rows`: one sum of the original rows."""
        return self.base.combine(self.mixing.T @ weights)

    @cached_property
    def squared_distances(self) -> torch.Tensor:
        """See `Rows`."""
        sums = self.mixing.sum(dim=1)
        points = self._points(origin=bool((sums - sums[0]).abs().max() > 1e-12))
        return super().squared_distances if points is None else points[: self.n, : self.n]

    @cached_property
    def squared_norms(self) -> torch.Tensor:
        """See `Rows`."""
        points = self._points(origin=True)
        return super().squared_norms if points is None else points[: self.n, self.n]

    def _points(self, origin: bool) -> torch.Tensor | None:
        """Distances between these rows (and zero, last), by those of the base; None if that is no good.

        It is none if digits would cancel (mixtures much closer to each other than what they are made
        of), or if the rows are so short, or so many, that it is cheaper to start afresh. Zero is one more
        point, so that rows of W need not sum to the same.
        """
        if 4 * self.base.n**2 > self.d:
            return None
        distances, mixing = self.base.squared_distances, self.mixing
        if origin:
            distances = with_point(distances, self.base.squared_norms)
            mixing = torch.cat([mixing, mixing.new_zeros(1, self.base.n)])
            mixing = torch.cat([mixing, 1 - mixing.sum(dim=1, keepdim=True)], dim=1)
        points, reliable = mixed_distances(distances, mixing)
        return points if reliable else None

    def _block_for_distances(self, columns: slice) -> torch.Tensor:
        # In float64: the mixtures' own rounding would be all there is between close ones.
        return self.mixing @ self.base.block(columns).double()


def _in_range(weights: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Weights as `dtype`, or as float64 if they, not being zero, would underflow or overflow."""
    limits = torch.finfo(dtype)
    size = weights[weights != 0].abs()
    fits = bool(((size >= limits.tiny) & (size <= limits.max)).all())
    return weights.to(dtype if fits else torch.float64)
