"""The rows that rules aggregate: a matrix, or what pre-aggregations make of one without copying it."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

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
# Memory-bound passes use wider blocks, to amortise the call.
_WIDE_COLUMNS = 1 << 15


def view_of(array: NDArray[np.floating]) -> torch.Tensor:
    """A tensor on an array's memory, which may be read-only, as uploads are: not to be written to."""
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

    # -- what each kind of rows implements -------------------------------------------------------------

    @abstractmethod
    def block(self, columns: Columns) -> torch.Tensor:
        """The (n, c) values of some columns (a slice or indices), possibly a view: not to be modified."""

    @abstractmethod
    def part(self, columns: slice) -> "Rows":
        """The same rows with these columns only, e.g. one layer's."""

    @abstractmethod
    def to_clients(self, values: torch.Tensor) -> torch.Tensor:
        """Map row weights back to client weights: (n,) -> (num_clients,)."""

    @abstractmethod
    def from_clients(self, weights: torch.Tensor) -> torch.Tensor:
        """Divide client weights among the rows that they entered: (num_clients,) -> (n,), sums to 1."""

    # -- what follows from it --------------------------------------------------------------------------

    def matrix(self) -> torch.Tensor:
        """All values, (n, d): a copy unless the rows are a matrix. Rules that care for memory read blocks."""
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

        Rows of weight zero never contribute, even where zero times NaN or Inf would be NaN.
        """
        used = (weights != 0).nonzero().squeeze(1)
        share = _in_range(weights, self.dtype)
        few = 2 * len(used) < self.n
        out = torch.empty(self.d, dtype=self.dtype, device=self.device)

        def weigh(block: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
            return torch.mv(block.to(share.dtype).T, share)

        def work(block: torch.Tensor, columns: slice) -> None:
            total = None if few else weigh(block, share)  # cheaper than copying the rows that are used
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
            # In float64: the products of nearly orthogonal vectors cancel.
            wide = scratch.like(block, torch.float64).copy_(block)
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

    @override
    def block(self, columns: Columns) -> torch.Tensor:
        block: torch.Tensor = self._matrix[:, columns]
        return block

    @override
    def row(self, index: int) -> torch.Tensor:
        return self._matrix[index].clone()

    @override
    def part(self, columns: slice) -> Rows:
        return MatrixRows(self._matrix[:, columns])

    @override
    def to_clients(self, values: torch.Tensor) -> torch.Tensor:
        return values

    @override
    def from_clients(self, weights: torch.Tensor) -> torch.Tensor:
        return weights


class MixedRows(Rows):
    """Linear combinations W X of other rows X, computed block by block and never stored."""

    base: Rows
    mixing: torch.Tensor

    def __init__(self, base: Rows, mixing: torch.Tensor) -> None:
        """Combine rows.

        Args:
            base: m rows X; if they are mixtures themselves, the result is one of their base.
            mixing: (n, m) W, non-negative float64.
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
    @override
    def block(self, columns: Columns) -> torch.Tensor:
        values = self.base.block(columns).to(self._weights.dtype)
        return (self._weights @ values if self._scales is None else values * self._scales).to(self.dtype)

    @override
    def part(self, columns: slice) -> Rows:
        return MixedRows(self.base.part(columns), self.mixing)

    @override
    def to_clients(self, values: torch.Tensor) -> torch.Tensor:
        return self.base.to_clients(self.mixing.T @ values)

    @override
    def from_clients(self, weights: torch.Tensor) -> torch.Tensor:
        weights = self.base.from_clients(weights)
        entered = self.mixing.sum(dim=0)
        claims = self.mixing @ torch.where(entered > 0, weights / entered, 0.0)
        return claims / claims.sum()

    def combine(self, weights: torch.Tensor) -> torch.Tensor:
        """One weighted sum of the base rows."""
        return self.base.combine(self.mixing.T @ weights)

    @cached_property
    @override
    def squared_distances(self) -> torch.Tensor:
        sums = self.mixing.sum(dim=1)
        points = self._points(origin=bool((sums - sums[0]).abs().max() > 1e-12))
        return super().squared_distances if points is None else points[: self.n, : self.n]

    @cached_property
    @override
    def squared_norms(self) -> torch.Tensor:
        points = self._points(origin=True)
        return super().squared_norms if points is None else points[: self.n, self.n]

    def _points(self, origin: bool) -> torch.Tensor | None:
        """Squared distances between these rows (and zero, last) from those of the base rows.

        None if rounding would dominate (mixtures much closer to each other than the rows that they are made
        of), or if it is not cheaper than reading the rows (few columns, many rows). With zero as one more
        point, the rows of W may have different sums.
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
        # In float64: between close mixtures, their rounding to float32 would be all of the distance.
        return self.mixing @ self.base.block(columns).double()


def _in_range(weights: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Weights as `dtype`, or as float64 if a nonzero one would underflow or overflow."""
    limits = torch.finfo(dtype)
    size = weights[weights != 0].abs()
    fits = bool(((size >= limits.tiny) & (size <= limits.max)).all())
    return weights.to(dtype if fits else torch.float64)
