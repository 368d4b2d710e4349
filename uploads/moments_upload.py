"""What travels of moments uploads: the touched rows of each client, or all arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from byzflower.uploads.base import Rejected, Upload
from byzflower.uploads.dense import DenseUpload
from byzflower.uploads.layout import Layout
from byzflower.uploads.moments_layout import MomentsLayout, Touched, ends_of, moments_layout

TOUCHED, SPLITS, VALUES, BUFFERS = "touched", "splits", "values", "buffers"
COMPACT = (TOUCHED, SPLITS, VALUES, BUFFERS)


@dataclass
class MomentsUpload(Upload):
    """Parameters and moments of k clients, each of the rows that it touched.

    Layouts are those of the broadcast: model and moments (`MomentsLayout.full`). In the full form a
    client sends all of these arrays, in the compact one its touched rows; what is absent has seen a
    gradient of 0, and the server knows what that makes of it.

    Attributes:
        touched: of each client, (r,) int32 rows, ascending.
        values: of each client, (depth, width of these rows).
        buffers: (k, num_buffers).
    """

    kind: ClassVar[str] = "moments"

    touched: Sequence[NDArray[np.int32]]
    values: Sequence[NDArray[Any]]
    buffers: NDArray[Any]

    def client(self, index: int) -> Touched:
        """What the client at this position sends: views."""
        return Touched(self.touched[index], self.values[index], self.buffers[index])

    def take(self, indices: list[int]) -> "MomentsUpload":
        """Return the uploads of the clients at these positions."""
        return MomentsUpload(
            [self.client_ids[i] for i in indices],
            self.num_examples[indices],
            [self.metrics[i] for i in indices],
            [self.touched[i] for i in indices],
            [self.values[i] for i in indices],
            self.buffers[indices],
        )

    def without_untouched(self, rest: NDArray[Any], layout: MomentsLayout) -> "MomentsUpload":
        """Leave out rows that are exactly what a gradient of 0 makes of them.

        Args:
            rest: (depth, d) state of a client that touched nothing.
            layout: of the broadcast.
        """
        clients = [layout.without_untouched(self.client(i), rest) for i in range(len(self))]
        return MomentsUpload(
            self.client_ids,
            self.num_examples,
            self.metrics,
            [client.rows for client in clients],
            [client.values for client in clients],
            self.buffers,
        )

    def payload(self, layout: Layout, *, cohort: bool) -> dict[str, NDArray[Any]]:
        """The compact form, for one client or many."""
        own = moments_layout(layout)
        nothing = np.empty((own.depth, 0), layout.row_dtype)
        values = np.concatenate([nothing, *self.values], axis=1) if len(self) != 1 else self.values[0]
        touched = np.concatenate([np.empty(0, np.int32), *self.touched])
        splits = ends_of([len(rows) for rows in self.touched])
        return dict(zip(COMPACT, (touched, splits, values, self.buffers), strict=True))

    def client_bytes(self, layout: Layout) -> list[int]:
        """Bytes of the compact form of each client."""
        each = 2 * np.dtype(np.int64).itemsize + layout.num_buffers * layout.row_dtype.itemsize
        return [
            rows.nbytes + values.nbytes + each for rows, values in zip(self.touched, self.values, strict=True)
        ]


class FullMoments(MomentsUpload):
    """The full form: every client touched all rows. Of a client alone, a row is made anew each time."""

    def __init__(self, dense: DenseUpload, layout: MomentsLayout) -> None:
        """Read dense uploads of model and moments."""
        Upload.__init__(self, dense.client_ids, dense.num_examples, dense.metrics)
        self._dense, self._own = dense, layout

    @property
    def touched(self) -> list[NDArray[np.int32]]:  # type: ignore[override]
        """All rows, of each client."""
        return [self._own.rows] * len(self)

    @property
    def values(self) -> list[NDArray[Any]]:  # type: ignore[override]
        """The state of each client."""
        return [self._own.state(self._dense.row(i)) for i in range(len(self))]

    @property
    def buffers(self) -> NDArray[Any]:  # type: ignore[override]
        """(k, num_buffers)."""
        return self._dense.rows[:, self._own.depth * self._own.model.d :]

    def client(self, index: int) -> Touched:
        """What the client at this position sends."""
        row = self._dense.row(index)
        state = self._own.state(row)
        return Touched(self._own.rows, state, row[state.size :])

    def take(self, indices: list[int]) -> MomentsUpload:
        """Those of the dense upload."""
        return FullMoments(self._dense.take(indices), self._own)

    def client_bytes(self, layout: Layout) -> list[int]:
        """Bytes of the compact form with all rows."""
        rows = layout.width * layout.row_dtype.itemsize + self._own.rows.nbytes
        return [rows + 2 * np.dtype(np.int64).itemsize] * len(self)


def check_compact(
    touched: NDArray[Any],
    splits: NDArray[Any],
    values: NDArray[Any],
    buffers: NDArray[Any],
    layout: MomentsLayout,
    k: int,
) -> NDArray[np.int64]:
    """Check the compact form of k clients.

    Returns:
        The offsets.

    Raises:
        Rejected: with the reason.
    """
    for name, array, kind, ndim in (
        (TOUCHED, touched, np.dtype(np.int32), 1),
        (SPLITS, splits, np.dtype(np.int64), 1),
        (VALUES, values, layout.full.row_dtype, 2),
        (BUFFERS, buffers, layout.full.row_dtype, 2),
    ):
        if array.dtype != kind or array.ndim != ndim:
            raise Rejected(f"{name!r} is {array.dtype} of {array.ndim} dimensions, expected {kind} of {ndim}")
    if (
        splits.shape != (k + 1,)
        or splits[0] != 0
        or splits[-1] != len(touched)
        or (splits[1:] < splits[:-1]).any()
    ):
        raise Rejected(f"{SPLITS!r} does not divide {len(touched)} touched rows among {k} clients")
    if len(touched) and not (touched.min() >= 0 and touched.max() < layout.num_rows):
        raise Rejected(f"touched rows are not all in [0, {layout.num_rows})")
    descends = np.diff(touched) <= 0
    descends[splits[1:-1][(splits[1:-1] > 0) & (splits[1:-1] < len(touched))] - 1] = False
    if descends.any():
        raise Rejected("touched rows are not ascending, each once")
    offsets = ends_of(layout.widths[touched])
    if values.shape != (layout.depth, offsets[-1]):
        raise Rejected(f"{VALUES!r} has shape {values.shape}, expected {(layout.depth, int(offsets[-1]))}")
    if buffers.shape != (k, layout.model.num_buffers):
        raise Rejected(f"{BUFFERS!r} has shape {buffers.shape}, expected {(k, layout.model.num_buffers)}")
    divided: NDArray[np.int64] = offsets[splits]
    return divided
