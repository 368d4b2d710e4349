"""A round's uploads as rows of pseudo-gradients, in the order of the clients' ids."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.strategies.packs import PackedRows
from byzflower.strategies.result import Gradients
from byzflower.uploads.base import Rejection, Upload
from byzflower.uploads.dense import DenseUpload
from byzflower.uploads.layout import Layout
from byzflower.uploads.topk import TopKUpload

_NOT_FINITE = "NaN or Inf in the upload"


@dataclass
class Stacked(ABC):
    """The uploads of a round: client ids ascending, reported sizes, and who had to be left out.

    Attributes:
        client_ids: of the n rows.
        num_examples: (n,).
        rejections: clients whose values are not finite.
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
class DenseMatrix(Stacked):
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


@dataclass
class SparseRows(Stacked):
    """Top-k uploads.

    Attributes:
        upload: the n sparse models.
        reference: the global row that they started from.
    """

    upload: TopKUpload
    reference: NDArray[Any]

    @property
    def masks(self) -> NDArray[np.bool_]:  # type: ignore[override]
        """The (n, P) packs that were sent."""
        return self.upload.masks

    def gradients(self, device: torch.device) -> PackedRows:
        """See `Stacked`."""
        upload = self.upload
        return PackedRows(upload.packs, upload.masks, upload.values, self.reference[: self.d], device)

    @property
    def buffers(self) -> torch.Tensor:
        """See `Stacked`."""
        return torch.from_numpy(self.reference[self.d :] - self.upload.buffers)


def stack(uploads: Sequence[Upload], reference: NDArray[Any] | None, layout: Layout) -> Stacked:
    """Bring uploads of one kind into the order of their clients' ids, leaving out those with NaN or Inf.

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
    """Do it with top-k uploads, of which only views are taken; see `stack`."""
    found = {client: (upload, i) for upload in uploads for i, client in enumerate(upload.client_ids)}
    limit = np.finfo(reference.dtype).max - np.abs(reference).max(initial=0)
    finite, bad = [], []
    for client in sorted(found):
        upload, i = found[client]
        if all(_within(values, limit) for values in (upload.values[i], upload.buffers[i])):
            finite.append((client, upload, i))
        else:
            bad.append(Rejection(client, _NOT_FINITE))
    clients = [client for client, _, _ in finite]
    sizes = np.array([upload.num_examples[i] for _, upload, i in finite])
    models = [upload.model(i) for _, upload, i in finite]
    together = TopKUpload.of_models(clients, sizes, [{}] * len(models), uploads[0].packs, models, layout)
    return SparseRows(clients, sizes, bad, layout.d, together, reference)


def _within(values: NDArray[Any], limit: float) -> bool:
    """Whether no value is NaN, Inf, or so large that a difference to the model overflows."""
    return not values.size or bool(-limit <= values.min() and values.max() <= limit)


def stack_dense(uploads: Sequence[Upload], reference: NDArray[Any] | None, layout: Layout) -> DenseMatrix:
    """Stack dense uploads into one matrix ordered by client id, leaving out rows with NaN or Inf.

    Args:
        uploads: `DenseUpload`s of distinct clients.
        reference: the global row to subtract models from; None if the uploads are gradients.
        layout: the model's layout.
    """
    dense = [upload for upload in uploads if isinstance(upload, DenseUpload)]
    ids = [client for upload in dense for client in upload.client_ids]
    position = {client: i for i, client in enumerate(sorted(ids))}
    rows = np.empty((len(ids), layout.width), layout.row_dtype)
    sizes = np.empty(len(ids))
    with np.errstate(over="ignore", invalid="ignore"):
        for upload in dense:
            for i, client in enumerate(upload.client_ids):
                target = position[client]
                sizes[target] = upload.num_examples[i]
                upload.write_row(i, rows[target])
                if reference is not None:
                    np.subtract(reference, rows[target], out=rows[target])
    matrix = torch.from_numpy(rows)
    finite = finite_rows(matrix)
    order = sorted(ids)
    if bool(finite.all()):
        return DenseMatrix(order, sizes, [], layout.d, matrix)
    keep = finite.nonzero().squeeze(1)
    bad = [Rejection(order[i], _NOT_FINITE) for i in (~finite).nonzero().squeeze(1).tolist()]
    kept = keep.tolist()
    for target, i in enumerate(kept):  # in place: a NaN must not cost another copy of everything
        if target != i:
            matrix[target] = matrix[i]
    return DenseMatrix([order[i] for i in kept], sizes[kept], bad, layout.d, matrix[: len(kept)])


def finite_rows(matrix: torch.Tensor) -> torch.Tensor:
    """Boolean (n,): rows without NaN or Inf.

    A finite sum proves a row finite, in one pass without a temporary; only rows whose sum is not
    (because it overflowed, perhaps) are looked at value by value.
    """
    finite = torch.isfinite(matrix.sum(dim=1))
    for i in (~finite).nonzero().squeeze(1).tolist():
        finite[i] = torch.isfinite(matrix[i]).all()
    return finite
