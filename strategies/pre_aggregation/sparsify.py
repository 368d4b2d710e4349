"""Sparsification: only the largest entries of each upload are kept."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from typing_extensions import override

from byzflower.numerics.order_statistics import order_statistics
from byzflower.numerics.rows import Columns, Rows
from byzflower.numerics.threads import map_blocks
from byzflower.strategies.pre_aggregation.base import PreAggregation
from byzflower.strategies.result import NumByzantine, check


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

    @override
    def apply(self, rows: Rows, num_byzantine: NumByzantine | None = None, seed: int = 0) -> Rows:
        k = self.top_k if isinstance(self.top_k, int) else math.ceil(self.top_k * rows.d - 1e-9)
        return rows if k >= rows.d else MaskedRows.of_largest(rows, k)


class MaskedRows(Rows):
    """Rows of which only some entries are seen, the rest being zero.

    What is kept is stored as one bit per entry: a threshold would not do, since mixtures are rounded
    differently in blocks of other widths.
    """

    def __init__(self, base: Rows, bits: torch.Tensor, first: int = 0) -> None:
        """Mask.

        Args:
            base: n rows.
            bits: uint8 (n, b), which entries to keep, eight to a byte, the first in its highest bit.
            first: the bit of the first column.
        """
        self._base, self._bits, self._first = base, bits, first
        self.n, self.d = base.n, base.d
        self.dtype, self.device, self.num_clients = base.dtype, base.device, base.num_clients

    @classmethod
    def of_largest(cls, rows: Rows, k: int) -> "MaskedRows":
        """Keep each row's k < d largest entries."""
        bits = torch.empty(rows.n, -(-rows.d // 8), dtype=torch.uint8, device=rows.device)

        def keep(own: slice) -> None:
            bits[own.start] = _packed(_largest(rows.row(own.start).abs_(), k))

        map_blocks(keep, rows.n, 1)
        return cls(rows, bits)

    @override
    def block(self, columns: Columns) -> torch.Tensor:
        return torch.where(self._mask(columns), self._base.block(columns), 0)

    @override
    def part(self, columns: slice) -> Rows:
        start, stop, step = columns.indices(self.d)
        if step != 1:
            raise ValueError(f"a part must be columns in a row, got every {step}th")
        return MaskedRows(self._base.part(slice(start, stop)), self._bits, self._first + start)

    def _mask(self, columns: Columns) -> torch.Tensor:
        """Boolean (n, c): which of the entries in these columns are kept."""
        if isinstance(columns, slice) and columns.step not in (None, 1):
            columns = torch.arange(*columns.indices(self.d), device=self.device)
        if isinstance(columns, torch.Tensor):
            places = columns % self.d + self._first
            return (self._bits[:, places // 8] >> (7 - places % 8)) & 1 > 0
        start, stop, _ = (self._first + end for end in columns.indices(self.d))
        held = self._bits[:, start // 8 : -(-stop // 8)]
        return _unpacked(held)[:, start % 8 : start % 8 + stop - start]

    @override
    def to_clients(self, values: torch.Tensor) -> torch.Tensor:
        return self._base.to_clients(values)

    @override
    def from_clients(self, weights: torch.Tensor) -> torch.Tensor:
        return self._base.from_clients(weights)


_SHIFTS = torch.arange(7, -1, -1, dtype=torch.uint8)


def _packed(mask: torch.Tensor) -> torch.Tensor:
    """Eight entries of a boolean (d,) mask in a byte, the first in its highest bit."""
    if not mask.is_cuda:
        return torch.from_numpy(np.packbits(mask.numpy()))
    padded = torch.nn.functional.pad(mask.to(torch.uint8), (0, -len(mask) % 8)).view(-1, 8)
    return (padded << _SHIFTS.to(mask.device)).sum(dim=1, dtype=torch.uint8)


def _unpacked(held: torch.Tensor) -> torch.Tensor:
    """Inverse of `_packed`, for rows of bytes: (n, b) -> boolean (n, 8 b)."""
    if not held.is_cuda:
        return torch.from_numpy(np.unpackbits(held.numpy(), axis=1).view(np.bool_))
    return ((held[:, :, None] >> _SHIFTS.to(held.device)) & 1 > 0).flatten(1)


def _largest(sizes: torch.Tensor, k: int) -> torch.Tensor:
    """Boolean (d,) mask of the k largest sizes; ties go to the lower index."""
    threshold = _ascending(sizes, len(sizes) - k)
    mask = sizes > threshold
    ties = (sizes == threshold).nonzero().squeeze(1)
    mask[ties[: k - int(mask.sum())]] = True
    return mask


def _ascending(values: torch.Tensor, position: int) -> float:
    """The value at a position, from 0, of the sorted (d,) values."""
    if values.is_cuda:
        return float(values.kthvalue(position + 1).values)
    return float(order_statistics(values.detach().numpy()[None], position, position + 1)[0, 0])
