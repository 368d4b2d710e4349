"""A round's uploads as rows of pseudo-gradients, in the order of the clients' ids."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.strategies.packs import PackedRows
from byzflower.strategies.result import Gradients
from byzflower.strategies.rows import view_of
from byzflower.threads import map_blocks, subnormals_as_zero
from byzflower.uploads.base import Rejection, Upload
from byzflower.uploads.dense import DenseUpload
from byzflower.uploads.layout import Layout
from byzflower.uploads.topk import TopKUpload

# Longer rows are quarantined, in models of any dtype: their squares overflow float32. All that rules make of
# shorter ones (fourth powers of n norms, summed, at most) is finite in float64.
MAX_NORM = math.sqrt(float(np.finfo(np.float32).max))
_NOT_FINITE = "NaN or Inf in the upload"
_TOO_LONG = f"so large that its norm is above {MAX_NORM:.3g}, where squares overflow float32"
_BLOCK_SCALARS = 1 << 18


@dataclass
class Stacked(ABC):
    """The uploads of a round: client ids ascending, reported sizes, and who had to be left out.

    Attributes:
        client_ids: of the n rows.
        num_examples: (n,).
        rejections: clients whose values are not finite, or too large.
        d: columns of a row that are parameters.
    """

    client_ids: list[int]
    num_examples: NDArray[np.float64]
    rejections: list[Rejection]
    d: int

    masks: ClassVar[NDArray[np.bool_] | None] = None

    @abstractmethod
    def gradients(self, device: torch.device) -> Gradients:
        """The n pseudo-gradients."""

    @property
    @abstractmethod
    def buffers(self) -> torch.Tensor:
        """The (n, num_buffers) steps of the buffers, on the CPU."""


@dataclass
class StackedRows(Stacked):
    """Uploads of which some may still be left out."""

    @abstractmethod
    def _keep(self, kept: list[int]) -> None:
        """Keep the rows at these positions only."""

    def steps(self, columns: slice) -> NDArray[Any]:
        """Some columns, all of parameters or all of buffers, of the n whole rows: (n, c)."""
        if columns.start >= self.d:
            return self.buffers.numpy()[:, columns.start - self.d : columns.stop - self.d]
        gradients = self.gradients(torch.device("cpu"))
        block = gradients[:, columns] if isinstance(gradients, torch.Tensor) else gradients.block(columns)
        return block.numpy()

    def without(self, faults: Mapping[int, str]) -> Self:
        """Leave out the rows at these positions, for these reasons."""
        if faults:
            self.rejections += [Rejection(self.client_ids[i], faults[i]) for i in sorted(faults)]
            kept = [i for i in range(len(self.client_ids)) if i not in faults]
            self._keep(kept)
            self.client_ids = [self.client_ids[i] for i in kept]
            self.num_examples = self.num_examples[kept]
        return self


@dataclass
class DenseMatrix(StackedRows):
    """Dense uploads.

    Attributes:
        rows: (n, width) pseudo-gradients and steps of the buffers.
    """

    rows: torch.Tensor

    def gradients(self, device: torch.device) -> torch.Tensor:
        """See `Stacked`."""
        return self.rows[:, : self.d].to(device)

    @property
    def buffers(self) -> torch.Tensor:
        """See `Stacked`."""
        return self.rows[:, self.d :]

    def _keep(self, kept: list[int]) -> None:
        for target, i in enumerate(kept):  # in place: a NaN must not cost another copy of everything
            if target != i:
                self.rows[target] = self.rows[i]
        self.rows = self.rows[: len(kept)]


@dataclass
class SparseRows(StackedRows):
    """Top-k uploads.

    Attributes:
        upload: the n sparse models.
        reference: the global row that they started from.
    """

    upload: TopKUpload
    reference: NDArray[Any]
    _rows: PackedRows | None = field(default=None, repr=False)

    @property
    def masks(self) -> NDArray[np.bool_]:  # type: ignore[override]
        """The (n, P) packs that were sent."""
        return self.upload.masks

    def gradients(self, device: torch.device) -> PackedRows:
        """See `Stacked`."""
        if self._rows is None or self._rows.device != device:
            upload = self.upload
            reference = self.reference[: self.d]
            self._rows = PackedRows(upload.packs, upload.masks, upload.values, reference, device)
        return self._rows

    @property
    def buffers(self) -> torch.Tensor:
        """See `Stacked`."""
        return torch.from_numpy(self.reference[self.d :] - self.upload.buffers)

    def is_short(self, i: int) -> bool:
        """Whether a row, buffers and all, is finite and not longer than `MAX_NORM`."""
        with np.errstate(over="ignore", invalid="ignore"):
            buffers = (self.reference[self.d :] - self.upload.buffers[i]).astype(np.float64)
            one = self.gradients(torch.device("cpu")).take([i])
            return float(one.squared_norms) + float(buffers @ buffers) <= MAX_NORM**2

    def _keep(self, kept: list[int]) -> None:
        self.upload, self._rows = self.upload.take(kept), None


def stack(uploads: Sequence[Upload], reference: NDArray[Any] | None, layout: Layout) -> StackedRows:
    """Bring uploads of one kind into the order of their clients' ids, leaving out what no rule can use.

    That is rows with NaN or Inf, and rows longer than `MAX_NORM`.

    Args:
        uploads: of distinct clients.
        reference: the global row to subtract models from; None if the uploads are gradients.
        layout: the model's layout.
    """
    sparse = [upload for upload in uploads if isinstance(upload, TopKUpload)]
    if sparse and reference is not None:
        return stack_sparse(sparse, reference, layout)
    return stack_dense(uploads, reference, layout)


def stack_sparse(uploads: Sequence[TopKUpload], reference: NDArray[Any], layout: Layout) -> SparseRows:
    """Stack top-k uploads without copying their values; see `stack`."""
    found = {client: (upload, i) for upload in uploads for i, client in enumerate(upload.client_ids)}
    clients = sorted(found)
    ordered = [found[client] for client in clients]
    sizes = np.array([upload.num_examples[i] for upload, i in ordered])
    models = [upload.model(i) for upload, i in ordered]
    together = TopKUpload.of_models(clients, sizes, [{}] * len(models), uploads[0].packs, models, layout)
    stacked = SparseRows(clients, sizes, [], layout.d, together, reference)
    # By the triangle inequality most need not be subtracted.
    parts = [
        view_of(part) for part in (reference, *(p for model in models for p in (model.values, model.buffers)))
    ]
    lengths = map_blocks(lambda part: _length(parts[part.start]), len(parts), 1)
    doubtful = [
        i for i in range(len(models)) if not sum(lengths[1 + 2 * i : 3 + 2 * i], lengths[0]) <= MAX_NORM
    ]
    return stacked.without(
        {i: fault(models[i].values, models[i].buffers) for i in doubtful if not stacked.is_short(i)}
    )


def _length(row: torch.Tensor) -> float:
    return float(_norms((row.float() if row.dtype == torch.float16 else row)[None]))


def stack_dense(uploads: Sequence[Upload], reference: NDArray[Any] | None, layout: Layout) -> DenseMatrix:
    """Stack dense uploads into one matrix ordered by client id; see `stack`.

    Args:
        uploads: `DenseUpload`s of distinct clients.
        reference: the global row to subtract models from; None if the uploads are gradients.
        layout: the model's layout.
    """
    dense = [upload for upload in uploads if isinstance(upload, DenseUpload)]
    found = {client: (upload, i) for upload in dense for i, client in enumerate(upload.client_ids)}
    order = sorted(found)
    ordered = [found[client] for client in order]
    sizes = np.array([upload.num_examples[i] for upload, i in ordered])
    rows = np.empty((len(order), layout.width), layout.row_dtype)
    matrix = torch.from_numpy(rows)
    norms = matrix.new_empty(len(order))

    def write(part: slice) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            for row, (upload, i) in zip(rows[part], ordered[part], strict=True):
                upload.write_row(i, row)
                if reference is not None:
                    np.subtract(reference, row, out=row)
        norms[part] = _norms(matrix[part])

    # Of short rows the time is Python's, which threads would only take from each other.
    map_blocks(write, len(order), 1 if layout.width > _BLOCK_SCALARS // 4 else max(1, len(order)))
    faults = {}
    for target in (~(norms <= MAX_NORM)).nonzero().squeeze(1).tolist():
        upload, i = ordered[target]
        upload.write_row(i, rows[target])  # as it was sent
        faults[target] = fault(rows[target])
    return DenseMatrix(order, sizes, [], layout.d, matrix).without(faults)


def row_norms(matrix: torch.Tensor) -> torch.Tensor:
    """Euclidean norms of the rows, in their own dtype: inf or NaN where it, or a square, overflows."""
    parts = map_blocks(lambda part: _norms(matrix[part]), len(matrix), _rows_in_a_block(matrix.shape[1]))
    return torch.cat([matrix.new_empty(0), *parts])


@subnormals_as_zero()
def _norms(rows: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms


def _rows_in_a_block(width: int) -> int:
    return max(1, _BLOCK_SCALARS // max(1, width))


def fault(*sent: NDArray[Any]) -> str:
    """What is wrong with values that were found to be not finite or too long."""
    return _TOO_LONG if all(np.isfinite(values).all() for values in sent) else _NOT_FINITE


def misfits(stacked: StackedRows, start: NDArray[Any], server_lr: float, layout: Layout) -> dict[int, str]:
    """Positions of uploads that, alone, would lead to a model that its own dtypes cannot hold, and why.

    Args:
        stacked: the uploads.
        start: (width,) the global row.
        server_lr: step size of parameters; that of buffers is 1.
        layout: the model's layout.
    """
    faults: dict[int, str] = {}
    for name, dtype, columns in narrow_arrays(layout):
        lr = 1.0 if columns.start >= layout.d else server_lr
        alone = start[columns] - lr * stacked.steps(columns)
        for i in np.flatnonzero(~held(alone, dtype).all(axis=1)).tolist():
            faults.setdefault(i, f"values of array {name!r} that {dtype} cannot hold")
    return faults


def is_held(row: NDArray[Any], layout: Layout) -> bool:
    """Whether a (width,) row is finite, and stays so in the dtypes of the model's arrays."""
    return bool(np.isfinite(row).all()) and all(
        held(row[columns], dtype).all() for _, dtype, columns in narrow_arrays(layout)
    )


def narrow_arrays(layout: Layout) -> list[tuple[str, np.dtype[Any], slice]]:
    """Name, dtype and columns of the arrays that cannot hold all that a row's dtype can."""
    arrays = zip(layout.names, layout.dtypes, layout.starts, layout.sizes, strict=True)
    return [
        (name, dtype, slice(start, start + size))
        for name, dtype, start, size in arrays
        if size and dtype.kind != "b" and dtype != layout.row_dtype
    ]


def held(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.bool_]:
    """Which values a dtype can hold, integers after rounding."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            finite: NDArray[np.bool_] = np.isfinite(values.astype(dtype))
        return finite
    limits, rounded = np.iinfo(dtype), np.rint(values)
    fits: NDArray[np.bool_] = (rounded >= limits.min) & (rounded < float(limits.max) + 1)
    return fits
