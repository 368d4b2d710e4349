"""Dense uploads: every client sends all of its model (`Weights`), or of a gradient (`Gradients`)."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.threads import map_blocks
from byzflower.uploads.base import Rejected, Rejection, Upload
from byzflower.uploads.kind import Gathering, UploadKind
from byzflower.uploads.layout import Layout
from byzflower.uploads.limits import MAX_NORM, fault, misfits, norms_of
from byzflower.uploads.round import Broadcast, Forged, UploadRound

ROWS = "rows"
_LONG_ROW = 1 << 16  # scalars


@dataclass
class DenseUpload(Upload):
    """Models or gradients of k clients, one row each.

    Attributes:
        rows: (k, layout.width), in `layout.row_dtype`; may be a read-only view of what arrived.
    """

    kind: ClassVar[str] = "dense"

    rows: NDArray[Any]

    def take(self, indices: list[int]) -> "DenseUpload":
        """Return the uploads of the clients at these positions, whose rows stay where they are."""
        return SomeOf(self, indices)

    def row(self, index: int) -> NDArray[Any]:
        """(layout.width,) of the client at this position: a view, if there is an array of all rows."""
        row: NDArray[Any] = self.rows[index]
        return row

    def write_row(self, index: int, row: NDArray[Any]) -> None:
        """Copy the row of the client at this position into a (layout.width,) array."""
        row[:] = self.rows[index]

    def payload(self, layout: Layout, *, cohort: bool) -> dict[str, NDArray[Any]]:
        """A cohort: one matrix. One client: the model's own named arrays."""
        if cohort:
            return {ROWS: self.rows}
        return dict(zip(layout.names, layout.arrays(self.rows[0]), strict=True))

    def client_bytes(self, layout: Layout) -> list[int]:
        """The model's bytes, for everyone."""
        return [layout.nbytes] * len(self)


class OwnUpload(DenseUpload):
    """What one client sent, array by array: views of its reply, put into a row only where one is needed."""

    def __init__(
        self,
        client_ids: list[int],
        num_examples: NDArray[np.float64],
        metrics: list[dict[str, float]],
        arrays: Sequence[NDArray[Any]],
        layout: Layout,
    ) -> None:
        """Keep the arrays of one client, which are the layout's."""
        Upload.__init__(self, client_ids, num_examples, metrics)
        self._arrays, self._layout = arrays, layout

    @property
    def rows(self) -> NDArray[Any]:  # type: ignore[override]
        """(1, layout.width), made anew each time."""
        return self._layout.row(self._arrays)[None]

    def row(self, index: int) -> NDArray[Any]:
        """(layout.width,), made anew each time."""
        return self._layout.row(self._arrays)

    def write_row(self, index: int, row: NDArray[Any]) -> None:
        """Copy the arrays into a (layout.width,) array."""
        self._layout.write_row(self._arrays, row)


class SomeOf(DenseUpload):
    """Some clients of a dense upload: one hostile client must not cost a copy of all the others."""

    def __init__(self, upload: DenseUpload, indices: list[int]) -> None:
        """Take the clients at these positions."""
        Upload.__init__(
            self,
            [upload.client_ids[i] for i in indices],
            upload.num_examples[indices],
            [upload.metrics[i] for i in indices],
        )
        self._upload, self._indices = upload, indices

    @property
    def rows(self) -> NDArray[Any]:  # type: ignore[override]
        """(k, layout.width), made anew each time."""
        return self._upload.rows[self._indices]

    def row(self, index: int) -> NDArray[Any]:
        """Of the client at this position among those taken."""
        return self._upload.row(self._indices[index])

    def write_row(self, index: int, row: NDArray[Any]) -> None:
        """Copy the row of the client at this position among those taken."""
        self._upload.write_row(self._indices[index], row)


@dataclass
class DenseRound(UploadRound):
    """A round's dense uploads.

    Attributes:
        rows: (n, width) pseudo-gradients, and steps of the buffers.
    """

    rows: torch.Tensor

    def gradients(self, device: torch.device) -> torch.Tensor:
        """The (n, d) matrix; on the CPU, a view."""
        return self.rows[:, : self.d].to(device)

    def matrix(self) -> torch.Tensor:
        """The (n, d) matrix, a view."""
        return self.rows[:, : self.d]

    @property
    def buffers(self) -> torch.Tensor:
        """The other columns, a view."""
        return self.rows[:, self.d :]

    def leave_out(self, faults: Mapping[int, str]) -> None:
        """Leave out the rows at these positions, for these reasons; in place, without a copy of the rest."""
        if not faults:
            return
        self.rejections += [Rejection(self.client_ids[i], faults[i]) for i in sorted(faults)]
        kept = [i for i in range(len(self.client_ids)) if i not in faults]
        for target, i in enumerate(kept):
            if target != i:
                self.rows[target] = self.rows[i]
        self.rows = self.rows[: len(kept)]
        self.client_ids = [self.client_ids[i] for i in kept]
        self.num_examples = self.num_examples[kept]


class Dense(UploadKind):
    """Every client sends a value for each of the model's scalars."""

    @abstractmethod
    def to_gradient(self, row: NDArray[Any], start: NDArray[Any]) -> None:
        """Make what was sent a pseudo-gradient, in place."""

    @abstractmethod
    def from_gradient(self, gradient: NDArray[Any], start: NDArray[Any]) -> NDArray[Any]:
        """What a client with this pseudo-gradient sends."""

    def names(self, layout: Layout) -> tuple[str, ...]:
        """Names of the model's arrays."""
        return layout.names

    def gather(self, clients: int, layout: Layout) -> Gathering:
        """Write each client's arrays into one matrix as they come."""
        return _Matrix(clients, layout)

    def join(self, uploads: Sequence[DenseUpload], layout: Layout) -> DenseUpload:
        """One matrix of all the clients."""
        rows = np.empty((sum(map(len, uploads)), layout.width), layout.row_dtype)
        places = iter(rows)
        for upload in uploads:
            for i in range(len(upload)):
                upload.write_row(i, next(places))
        return DenseUpload(
            [client for upload in uploads for client in upload.client_ids],
            np.concatenate([np.empty(0), *(upload.num_examples for upload in uploads)]),
            [metrics for upload in uploads for metrics in upload.metrics],
            rows,
        )

    def decode(
        self,
        arrays: Mapping[str, NDArray[Any]],
        layout: Layout,
        client_ids: list[int],
        num_examples: NDArray[np.float64],
        metrics: list[dict[str, float]],
        *,
        cohort: bool,
    ) -> DenseUpload:
        """A cohort's matrix, or the model's arrays of one client.

        Raises:
            Rejected: missing, extra or reordered arrays, another shape or dtype.
        """
        if not cohort:
            return OwnUpload(client_ids, num_examples, metrics, checked(arrays, layout), layout)
        if tuple(arrays) != (ROWS,):
            raise Rejected(f"a cohort sends one array {ROWS!r}, got {_short(list(arrays))}")
        rows = arrays[ROWS]
        expected = (len(client_ids), layout.width)
        if rows.shape != expected:
            raise Rejected(f"cohort matrix has shape {rows.shape}, expected {expected}")
        if rows.dtype != layout.row_dtype:
            raise Rejected(f"cohort matrix has dtype {rows.dtype}, expected {layout.row_dtype}")
        return DenseUpload(client_ids, num_examples, metrics, rows)

    def rows(self, uploads: Sequence[DenseUpload], sent: Broadcast, server_lr: float) -> DenseRound:
        """Stack the uploads in one matrix; rows that are not finite or too long are quarantined."""
        layout, start = sent
        found = {client: (upload, i) for upload in uploads for i, client in enumerate(upload.client_ids)}
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
                    self.to_gradient(row, start)
            norms[part] = norms_of(matrix[part])

        # Of short rows the time is Python's, which threads would only take from each other.
        map_blocks(write, len(order), 1 if layout.width > _LONG_ROW else max(1, len(order)))
        faults = {}
        for target in (~(norms <= MAX_NORM)).nonzero().squeeze(1).tolist():
            upload, i = ordered[target]
            upload.write_row(i, rows[target])  # as it was sent
            faults[target] = fault(rows[target])
        stacked = DenseRound(order, sizes, [], layout.d, matrix)
        stacked.leave_out(faults)
        stacked.leave_out(misfits(lambda columns: stacked.rows.numpy()[:, columns], start, server_lr, layout))
        return stacked

    def forge(self, upload: DenseUpload, forged: Forged, sent: Broadcast) -> DenseUpload:
        """Overwrite the parameters of the forged clients; their buffers stay."""
        rows, d = np.array(upload.rows), sent.layout.d
        for i, position in forged.positions(upload.client_ids):
            rows[i, :d] = self.from_gradient(forged.rows[position].numpy(), sent.row[:d])
        return DenseUpload(upload.client_ids, upload.num_examples, upload.metrics, rows)


class Weights(Dense):
    """Clients send the model that they trained: g_i = w - w_i."""

    name: ClassVar[str] = "weights"
    learned: ClassVar[Literal["model", "gradient"]] = "model"

    def to_gradient(self, row: NDArray[Any], start: NDArray[Any]) -> None:
        """Subtract the uploaded model from the global one."""
        np.subtract(start, row, out=row)

    def from_gradient(self, gradient: NDArray[Any], start: NDArray[Any]) -> NDArray[Any]:
        """The global model minus the pseudo-gradient."""
        model: NDArray[Any] = start - gradient
        return model


class Gradients(Dense):
    """Clients send a gradient, or a momentum, which is used as it is."""

    name: ClassVar[str] = "gradient"
    learned: ClassVar[Literal["model", "gradient"]] = "gradient"

    def to_gradient(self, row: NDArray[Any], start: NDArray[Any]) -> None:
        """The gradient is used as it is."""

    def from_gradient(self, gradient: NDArray[Any], start: NDArray[Any]) -> NDArray[Any]:
        """The gradient itself."""
        return gradient

    def pseudo_gradient(self, row: NDArray[Any], sent: Broadcast) -> NDArray[Any]:
        """The gradient itself."""
        return row


class _Matrix(Gathering):
    """Rows of one matrix, filled from the top."""

    def __init__(self, clients: int, layout: Layout) -> None:
        self._layout = layout
        self._rows = np.empty((clients, layout.width), layout.row_dtype)
        self._count = 0

    def add(self, arrays: Sequence[NDArray[Any]]) -> None:
        check_arrays(arrays, self._layout)
        self._layout.write_row(arrays, self._rows[self._count])
        self._count += 1

    def upload(
        self, client_ids: list[int], num_examples: NDArray[np.float64], metrics: list[dict[str, float]]
    ) -> DenseUpload:
        return DenseUpload(client_ids, num_examples, metrics, self._rows[: self._count])


def checked(arrays: Mapping[str, NDArray[Any]], layout: Layout) -> list[NDArray[Any]]:
    """Return one client's arrays if they are the model's.

    Raises:
        Rejected: missing, extra or reordered arrays, another shape or dtype.
    """
    names = tuple(arrays)
    if names != layout.names:
        raise Rejected(_name_fault(names, layout.names))
    values = list(arrays.values())
    check_arrays(values, layout)
    return values


def check_arrays(arrays: Sequence[NDArray[Any]], layout: Layout) -> None:
    """Check number, shapes and dtypes of one client's arrays.

    Raises:
        Rejected: with the reason.
    """
    if len(arrays) != len(layout.names):
        raise Rejected(f"{len(arrays)} arrays, expected {len(layout.names)}")
    for name, array, shape, dtype in zip(layout.names, arrays, layout.shapes, layout.dtypes, strict=True):
        if array.shape != shape:
            raise Rejected(f"array {name!r} has shape {array.shape}, expected {shape}")
        if array.dtype != dtype:
            raise Rejected(f"array {name!r} has dtype {array.dtype}, expected {dtype}")


def _name_fault(names: Sequence[str], expected: Sequence[str]) -> str:
    missing = [n for n in expected if n not in names]
    extra = [n for n in names if n not in expected]
    if missing:
        return f"missing arrays {_short(missing)}"
    if extra:
        return f"unexpected arrays {_short(extra)}"
    return "arrays are in another order than the model's"


def _short(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(repr(n[:60]) for n in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
