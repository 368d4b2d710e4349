"""Sparse rows: each client sent some packs only, and no dense copy is made."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from byzflower.numerics.packs import DEFAULT_PACK_SIZE, Packs
from byzflower.numerics.rows import Columns, MatrixRows, Rows, TooFewClients
from byzflower.numerics.threads import map_blocks, subnormals_as_zero

# Scalars in a block of passes with few temporaries: 4 MiB of float32.
_BLOCK_SCALARS = 1 << 20
# Scalars of packs that are aggregated at once over their contributors: enough for all cores.
_CONTRIBUTED_SCALARS = 1 << 21


class PackedRows(Rows):
    """The rows (reference - values) of n clients in the packs that each sent, 0 in the others.

    Blocks are written out when they are asked for; nothing of the size n x d is kept.

    Attributes:
        packs: how a row is cut.
        masks: (n, P) bool, the packs that each client sent.
    """

    def __init__(
        self,
        packs: Packs,
        masks: NDArray[np.bool_],
        values: Sequence[NDArray[Any]],
        reference: NDArray[Any],
        device: torch.device | None = None,
    ) -> None:
        """Take uploads as they came, as views.

        Args:
            packs: how a row is cut.
            masks: (n, P).
            values: n arrays, the values of the packs of the mask, in order.
            reference: (d,) what they are subtracted from; its dtype is the rows'.
            device: of the blocks.

        Raises:
            TooFewClients: no rows.
        """
        if len(masks) < 1:
            raise TooFewClients(f"aggregation needs n >= 1, got n={len(masks)}")
        self.packs, self.masks = packs, masks
        self._values, self._reference = values, reference
        self.n, self.d = len(masks), packs.d
        self.dtype = torch.from_numpy(np.empty(0, reference.dtype)).dtype
        self.device = device or torch.device("cpu")
        self.num_clients = self.n
        self._ranks = np.zeros((self.n, packs.count + 1), np.int64)
        np.cumsum(masks, axis=1, out=self._ranks[:, 1:])

    @classmethod
    def of_matrix(
        cls,
        gradients: "torch.Tensor | Rows",
        masks: torch.Tensor | None = None,
        pack_size: int = DEFAULT_PACK_SIZE,
    ) -> "PackedRows":
        """Rows of an (n, d) matrix of which only the packs of (n, P) masks count (None: all).

        Raises:
            ValueError: masks of another shape.
        """
        rows = Rows.of(gradients)
        if isinstance(rows, PackedRows):
            return rows
        packs, matrix = Packs(rows.d, pack_size), rows.matrix().cpu().numpy()
        shape = (rows.n, packs.count)
        sent = np.ones(shape, np.bool_) if masks is None else masks.cpu().numpy().astype(np.bool_)
        if sent.shape != shape:
            raise ValueError(f"masks have shape {sent.shape}, expected {shape}: n rows, ceil(d / pack_size)")
        values = [-row[packs.columns(mask)] for row, mask in zip(matrix, sent, strict=True)]
        return cls(packs, sent, values, np.zeros(rows.d, matrix.dtype), rows.device)

    def take(self, indices: Sequence[int]) -> Self:
        """The rows at these positions."""
        values = [self._values[i] for i in indices]
        return type(self)(self.packs, self.masks[list(indices)], values, self._reference, self.device)

    @override
    def block(self, columns: Columns) -> torch.Tensor:
        if isinstance(columns, slice):
            first, last = columns.start // self.packs.size, -(-columns.stop // self.packs.size)
            start = first * self.packs.size
            values = self._write(first, last)[:, columns.start - start : columns.stop - start]
        else:
            values = self._gather(columns.cpu().numpy())
        return torch.from_numpy(values).to(self.device)

    @override
    def part(self, columns: slice) -> Rows:
        return MatrixRows(self.block(columns))

    @override
    def to_clients(self, values: torch.Tensor) -> torch.Tensor:
        return values

    @override
    def from_clients(self, weights: torch.Tensor) -> torch.Tensor:
        return weights

    def map_packs(self, work: Callable[[torch.Tensor, slice], Any]) -> list[Any]:
        """Call `work(block, packs)` for blocks of whole packs, (n, p, size), zeros where a pack ends early.

        In parallel, with the results in the order of the blocks, like `Rows.map`.
        """
        width = max(1, _BLOCK_SCALARS // (self.n * self.packs.size))

        def on_block(packs: slice) -> Any:
            block = self._write(packs.start, packs.stop).reshape(self.n, -1, self.packs.size)
            return work(torch.from_numpy(block).to(self.device), packs)

        return map_blocks(on_block, self.packs.count, width)

    def of_packs(self, chosen: NDArray[np.int64]) -> torch.Tensor:
        """The values of some packs, ascending, zeros where nothing was sent: (n, c, size)."""
        size, whole = self.packs.size, self.packs.d // self.packs.size
        block = np.zeros((self.n, len(chosen), size), self._reference.dtype)
        inner, reference = chosen[chosen < whole], self._reference[: whole * size].reshape(-1, size)
        for row, mask, ranks, values in zip(block, self.masks, self._ranks, self._values, strict=True):
            kept = mask[inner]
            sent = values[: ranks[whole] * size].reshape(-1, size)
            row[: len(inner)][kept] = reference[inner[kept]] - sent[ranks[inner[kept]]]
            if len(inner) < len(chosen) and mask[whole]:  # the last pack, which ends early
                left = self.packs.d - whole * size
                row[-1, :left] = self._reference[whole * size :] - values[-left:]
        return torch.from_numpy(block).to(self.device)

    @cached_property
    def squared_norms(self) -> torch.Tensor:
        """From the packs that were sent, without a dense block."""

        def norm(sent: NDArray[Any]) -> float:
            square = float(np.dot(sent, sent))
            return square if math.isfinite(square) else float(np.sum(sent.astype(np.float64) ** 2))

        return torch.tensor(self._map_sent(norm), dtype=torch.float64, device=self.device)

    def largest(self) -> NDArray[np.float64]:
        """Largest absolute value that each client sent: (n,)."""
        return np.array(self._map_sent(lambda sent: float(np.abs(sent).max(initial=0))))

    def _map_sent(self, work: Callable[[NDArray[Any]], float]) -> list[float]:
        """Call `work` with what each client sent."""

        @subnormals_as_zero()
        def on_client(columns: slice) -> float:
            i = columns.start
            with np.errstate(over="ignore", invalid="ignore"):
                return work(self._reference[self.packs.columns(self.masks[i])] - self._values[i])

        return map_blocks(on_client, self.n, 1)

    def _write(self, first: int, last: int) -> NDArray[Any]:
        """The values of packs first..last-1, zeros where nothing was sent: (n, (last - first) * size)."""
        size, spare = self.packs.size, self.packs.spare if last == self.packs.count else 0
        block = np.zeros((self.n, last - first, size), self._reference.dtype)
        reference = self._reference[first * size : last * size]
        reference = np.pad(reference, (0, spare)).reshape(-1, size) if spare else reference.reshape(-1, size)
        for row, mask, ranks, values in zip(block, self.masks, self._ranks, self._values, strict=True):
            kept = mask[first:last]
            sent = values[ranks[first] * size : ranks[last] * size]
            if spare and kept[-1]:
                sent = np.pad(sent, (0, spare))
            row[kept] = reference[kept] - sent.reshape(-1, size)
        return block.reshape(self.n, -1)

    def _gather(self, columns: NDArray[np.int64]) -> NDArray[Any]:
        """The values of any columns: (n, c)."""
        packs, within = columns // self.packs.size, columns % self.packs.size
        out = np.zeros((self.n, len(columns)), self._reference.dtype)
        for row, mask, ranks, values in zip(out, self.masks, self._ranks, self._values, strict=True):
            kept = mask[packs]
            positions = ranks[packs[kept]] * self.packs.size + within[kept]
            row[kept] = self._reference[columns[kept]] - values[positions]
        return out


def mean_of_contributors(
    rows: PackedRows, weights: torch.Tensor, scales: torch.Tensor | None = None
) -> torch.Tensor:
    """Weighted mean of each pack over the clients that sent it; 0 where nobody did.

    Args:
        rows: n rows.
        weights: (n,) non-negative float64.
        scales: (n,) what each row is multiplied by before, default 1.
    """
    masks = torch.from_numpy(rows.masks).to(rows.device)
    shares = torch.zeros(rows.packs.count, dtype=torch.float64, device=rows.device)
    for mask, weight in zip(masks, weights, strict=True):
        shares += mask * weight
    scaled = (weights if scales is None else weights * scales).to(rows.dtype)
    out = torch.zeros(rows.packs.count, rows.packs.size, dtype=rows.dtype, device=rows.device)

    def work(block: torch.Tensor, packs: slice) -> None:
        total = torch.mv(block.reshape(rows.n, -1).T, scaled).reshape(-1, rows.packs.size)
        share = shares[packs, None]
        out[packs] = torch.where(share > 0, total.double() / share, 0.0).to(rows.dtype)

    rows.map_packs(work)
    return out.reshape(-1)[: rows.d]


def over_contributors(rows: PackedRows, rule: Callable[[Rows], torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Apply a coordinate-wise rule to each pack's contributors alone; 0 where nobody sent the pack.

    Packs with equally many contributors are put side by side, many at once but not all: a dense matrix
    of all rows is never made.

    Args:
        rows: n rows.
        rule: coordinate-wise and permutation-invariant.

    Returns:
        (d,) the aggregate, and the number of packs whose contributors were too few for the rule: 0 there.

    Raises:
        TooFewClients: they were too few in every pack.
    """
    packs, counts = rows.packs, rows.masks.sum(axis=0)
    out = torch.zeros(packs.count, packs.size, dtype=rows.dtype, device=rows.device)
    refused: list[TooFewClients] = []
    too_few = 0
    at_once = max(1, _CONTRIBUTED_SCALARS // (rows.n * packs.size))
    for count in np.unique(counts[counts > 0]).tolist():
        alike = np.flatnonzero(counts == count)
        for chosen in (alike[first : first + at_once] for first in range(0, len(alike), at_once)):
            who = np.nonzero(rows.masks[:, chosen].T)[1].reshape(-1, count).T
            block = rows.of_packs(chosen)[torch.from_numpy(who), torch.arange(len(chosen))]
            try:
                aggregate = rule(Rows.of(block.reshape(count, -1)))
            except TooFewClients as reason:
                refused.append(reason)
                too_few += len(alike)
                break
            out[torch.from_numpy(chosen)] = aggregate.reshape(-1, packs.size)
    if refused and too_few == np.count_nonzero(counts):
        raise refused[-1]
    return out.reshape(-1)[: rows.d], too_few
