"""Sparsification: only the largest entries of each upload are kept."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from byzflower.strategies.pre_aggregation.base import PreAggregation
from byzflower.strategies.result import NumByzantine, check
from byzflower.strategies.rows import Columns, Rows


@dataclass(frozen=True)
class Sparsify(PreAggregation):
    """All but the `top_k` entries of largest magnitude of each upload become zero.

    Of entries of equal magnitude the lower columns are kept.

    Attributes:
        top_k: a number of entries, at least 1, or a fraction of d in (0, 1], rounded up.
    """

    top_k: int | float

    def __post_init__(self) -> None:
        fits = self.top_k >= 1 if isinstance(self.top_k, int) else 0 < self.top_k <= 1
        check(fits, "top_k must be a positive integer or a fraction in (0, 1]", self.top_k)

    def apply(self, rows: Rows, num_byzantine: NumByzantine | None = None, seed: int = 0) -> Rows:
        """See `PreAggregation`."""
        k = self.top_k if isinstance(self.top_k, int) else math.ceil(self.top_k * rows.d - 1e-9)
        return rows if k >= rows.d else SparseRows.of_largest(rows, k)


class SparseRows(Rows):
    """Rows of which only some entries are seen, the rest being zero.

    What is kept is a mask, a quarter of the size of float32 rows: a threshold alone would not do, as
    mixtures are rounded in another way in blocks of another width.
    """

    def __init__(self, base: Rows, mask: torch.Tensor) -> None:
        """Mask.

        Args:
            base: n rows.
            mask: boolean (n, d), the entries to keep.
        """
        self._base, self._mask = base, mask
        self.n, self.d = base.n, base.d
        self.dtype, self.device, self.num_clients = base.dtype, base.device, base.num_clients

    @classmethod
    def of_largest(cls, rows: Rows, k: int) -> "SparseRows":
        """Keep each row's k < d largest entries."""
        mask = torch.empty(rows.n, rows.d, dtype=torch.bool, device=rows.device)
        for i in range(rows.n):
            mask[i] = _largest(rows.row(i).abs_(), k)
        return cls(rows, mask)

    def block(self, columns: Columns) -> torch.Tensor:
        """See `Rows`."""
        return torch.where(self._mask[:, columns], self._base.block(columns), 0)

    def part(self, columns: slice) -> Rows:
        """See `Rows`."""
        return SparseRows(self._base.part(columns), self._mask[:, columns])

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """See `Rows`."""
        return self._base.spread(values)

    def claims(self, weights: torch.Tensor) -> torch.Tensor:
        """See `Rows`."""
        return self._base.claims(weights)


def _largest(sizes: torch.Tensor, k: int) -> torch.Tensor:
    """Boolean (d,) mask of the k largest sizes, of equal ones the first."""
    threshold = _ascending(sizes, len(sizes) - k)
    mask = sizes > threshold
    ties = (sizes == threshold).nonzero().squeeze(1)
    mask[ties[: k - int(mask.sum())]] = True
    return mask


def _ascending(values: torch.Tensor, position: int) -> float:
    """The value at a position, from 0, of the sorted (d,) values."""
    if values.is_cuda:
        return float(values.kthvalue(position + 1).values)
    return float(np.partition(values.detach().numpy(), position)[position])  # a fifth of torch's time
