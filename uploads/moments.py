"""Moments uploads: parameters together with the optimizer's moments, of the rows that a client touched."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from byzflower.uploads.base import Rejected, Upload
from byzflower.uploads.dense import DenseUpload
from byzflower.uploads.layout import Layout

_PREFIX = "moments/"
TOUCHED, SPLITS, VALUES, BUFFERS = "touched", "splits", "values", "buffers"
COMPACT = (TOUCHED, SPLITS, VALUES, BUFFERS)


@dataclass(frozen=True)
class MomentsLayout:
    """A model's parameters, moments and rows.

    A tensor of two or more dimensions is made of rows, its slices along the first (of an embedding
    table: its items); any other is one row. Rows are numbered through the whole model.

    Attributes:
        model: layout of the model alone.
        slots: names of the moments.
    """

    model: Layout
    slots: tuple[str, ...]

    @cached_property
    def full(self) -> Layout:
        """Layout of what is broadcast: the model's arrays, then the moments of each parameter.

        A row holds theta, then each moment, d columns each, then the buffers.
        """
        dtypes = dict(zip(self.model.names, self.model.dtypes, strict=True))
        moments = [
            (f"{_PREFIX}{slot}/{name}", shape, dtypes[name])
            for slot in self.slots
            for name, shape, _ in self.model.parameters
        ]
        mine = zip(self.model.names, self.model.shapes, self.model.dtypes, strict=True)
        names, shapes, kinds = zip(*mine, *moments, strict=True)
        return Layout(names, shapes, kinds)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(num_rows + 1,) first column of each row, and d at the end."""
        firsts = [
            np.arange(columns.start, columns.stop, (columns.stop - columns.start) // count)
            for _, shape, columns in self.model.parameters
            if columns.stop > columns.start
            for count in [shape[0] if len(shape) > 1 else 1]
        ]
        return np.concatenate([*firsts, [self.model.d]]).astype(np.int64)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    @property
    def depth(self) -> int:
        """Values per parameter: itself and its moments."""
        return 1 + len(self.slots)

    @cached_property
    def widths(self) -> NDArray[np.int64]:
        """(num_rows,) parameters in each row."""
        return np.diff(self.starts)

    @cached_property
    def unit(self) -> int:
        """Columns that are always touched together: all rows' width if it is the same, else 1.

        State is read and written by units: whole rows of an embedding table move much faster than
        their scalars.
        """
        return int(self.widths[0]) if (self.widths == self.widths[0]).all() else 1

    def units(self, rows: NDArray[np.int32]) -> NDArray[np.int64]:
        """Units of the given rows, one row after the other."""
        if self.num_rows * self.unit == self.model.d:
            return rows.astype(np.int64)
        widths = self.widths[rows]
        ends = np.cumsum(widths)
        total = int(ends[-1]) if len(ends) else 0
        return np.repeat(self.starts[rows] - (ends - widths), widths) + np.arange(total)

    def by_unit(self, state: NDArray[Any]) -> NDArray[Any]:
        """A view (..., units, unit) of (..., columns)."""
        return state.reshape(*state.shape[:-1], -1, self.unit)

    def state(self, row: NDArray[Any]) -> NDArray[Any]:
        """Parameters and moments in a row of `full`: a view (depth, d)."""
        return row[: self.depth * self.model.d].reshape(self.depth, self.model.d)


@lru_cache(maxsize=32)
def moments_layout(full: Layout) -> MomentsLayout:
    """Find the model and its moments in the layout of what was broadcast.

    Raises:
        ValueError: there are no moments in it, or not of each parameter.
    """
    own = [i for i, name in enumerate(full.names) if not name.startswith(_PREFIX)]
    slots = dict.fromkeys(name.split("/")[1] for name in full.names if name.startswith(_PREFIX))
    model = Layout(
        tuple(full.names[i] for i in own),
        tuple(full.shapes[i] for i in own),
        tuple(full.dtypes[i] for i in own),
    )
    layout = MomentsLayout(model, tuple(slots))
    if not slots or layout.full != full:
        raise ValueError("these arrays are not a model and the moments of its parameters")
    return layout


@dataclass
class MomentsUpload(Upload):
    """Parameters and moments of k clients, each of the rows that it touched.

    Layouts are those of the broadcast: model and moments (`MomentsLayout.full`). In the full form a
    client sends all of these arrays, in the compact one its touched rows; what is absent has seen a
    gradient of 0, and the server knows what that makes of it.

    Attributes:
        splits: (k + 1,) int64, client i's rows are touched[splits[i]:splits[i + 1]].
        touched: (nnz,) int32 rows (see `MomentsLayout`), ascending for each client.
        values: (depth, width of all touched rows): theta, then each moment.
        buffers: (k, num_buffers).
        offsets: (k + 1,) int64, client i's values are values[:, offsets[i]:offsets[i + 1]].
    """

    kind: ClassVar[str] = "moments"

    splits: NDArray[np.int64]
    touched: NDArray[np.int32]
    values: NDArray[Any]
    buffers: NDArray[Any]
    offsets: NDArray[np.int64]

    def rows_of(self, i: int) -> NDArray[np.int32]:
        """Rows that the i-th client touched."""
        return self.touched[self.splits[i] : self.splits[i + 1]]

    def values_of(self, i: int) -> NDArray[Any]:
        """The i-th client's values of these rows: (depth, width), a view."""
        return self.values[:, self.offsets[i] : self.offsets[i + 1]]

    def take(self, indices: list[int]) -> Self:
        """Return the uploads of the clients at these positions."""
        return type(self)(
            [self.client_ids[i] for i in indices],
            self.num_examples[indices],
            [self.metrics[i] for i in indices],
            _ends(np.diff(self.splits)[indices]),
            np.concatenate([self.touched[:0], *(self.rows_of(i) for i in indices)]),
            np.concatenate([self.values[:, :0], *(self.values_of(i) for i in indices)], axis=1),
            self.buffers[indices],
            _ends(np.diff(self.offsets)[indices]),
        )

    @classmethod
    def empty(cls, layout: MomentsLayout) -> Self:
        """The upload of no clients."""
        dtype = layout.full.row_dtype
        return cls(
            [],
            np.empty(0),
            [],
            np.zeros(1, np.int64),
            np.empty(0, np.int32),
            np.empty((layout.depth, 0), dtype),
            np.empty((0, layout.model.num_buffers), dtype),
            np.zeros(1, np.int64),
        )

    @classmethod
    def concatenate(cls, uploads: "Sequence[MomentsUpload]") -> "MomentsUpload":
        """All clients of several uploads (at least one), in their order."""
        return cls(
            [client for upload in uploads for client in upload.client_ids],
            np.concatenate([upload.num_examples for upload in uploads]),
            [metrics for upload in uploads for metrics in upload.metrics],
            _ends(np.concatenate([np.diff(upload.splits) for upload in uploads])),
            np.concatenate([upload.touched for upload in uploads]),
            np.concatenate([upload.values for upload in uploads], axis=1),
            np.concatenate([upload.buffers for upload in uploads]),
            _ends(np.concatenate([np.diff(upload.offsets) for upload in uploads])),
        )

    def without_untouched(self, rest: NDArray[Any], layout: MomentsLayout) -> Self:
        """Leave out rows that are exactly what a gradient of 0 makes of them.

        Args:
            rest: (depth, d) state of a client that touched nothing.
            layout: of the broadcast.
        """
        if len(self.touched) == 0:
            return self
        widths = layout.widths[self.touched]
        untouched = layout.by_unit(rest)[:, layout.units(self.touched)]
        differs = (layout.by_unit(self.values) != untouched).any(axis=(0, 2)).repeat(layout.unit)
        keep = np.logical_or.reduceat(differs, np.cumsum(widths) - widths)
        if keep.all():
            return self
        kept = np.repeat(keep, widths)
        return dataclasses.replace(
            self,
            splits=_ends(keep)[self.splits],
            touched=self.touched[keep],
            values=self.values[:, kept],
            offsets=_ends(kept)[self.offsets],
        )

    def completed(self, rest: NDArray[Any], layout: MomentsLayout) -> NDArray[Any]:
        """All parameters and moments of every client: (k, depth, d).

        Args:
            rest: (depth, d) state of a client that touched nothing.
            layout: of the broadcast.
        """
        states = np.repeat(rest[None], len(self), axis=0)
        for i in range(len(self)):
            mine = layout.by_unit(states[i])
            mine[:, layout.units(self.rows_of(i))] = layout.by_unit(self.values_of(i))
        return states

    def payload(self, layout: Layout, *, cohort: bool) -> dict[str, NDArray[Any]]:
        """The compact form, for one client or many."""
        return dict(zip(COMPACT, (self.touched, self.splits, self.values, self.buffers), strict=True))

    def client_bytes(self, layout: Layout) -> list[int]:
        """Bytes of the compact form of each client."""
        values = np.diff(self.offsets) * len(self.values) * self.values.itemsize
        rows = np.diff(self.splits) * self.touched.itemsize + 2 * self.splits.itemsize
        return [int(b) for b in values + rows + self.buffers.shape[1] * self.buffers.itemsize]

    @staticmethod
    def names(layout: Layout) -> tuple[str, ...]:
        """Names of the full form's arrays, in order."""
        return layout.names

    @classmethod
    def from_payload(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        layout: Layout,
        client_ids: list[int],
        num_examples: NDArray[np.float64],
        metrics: list[dict[str, float]],
        *,
        cohort: bool,
    ) -> Self:
        """Rebuild either form from untrusted arrays.

        Raises:
            Rejected: with the reason.
        """
        own = moments_layout(layout)
        if tuple(arrays) == COMPACT:
            touched, splits, values, buffers = (arrays[name] for name in COMPACT)
            offsets = _check_compact(touched, splits, values, buffers, own, len(client_ids))
            return cls(client_ids, num_examples, metrics, splits, touched, values, buffers, offsets)
        dense = DenseUpload.from_payload(arrays, layout, client_ids, num_examples, metrics, cohort=cohort)
        return cls.of_rows(dense, own)

    @classmethod
    def of_rows(cls, dense: DenseUpload, layout: MomentsLayout) -> Self:
        """Take all rows of clients that sent all arrays."""
        k, d, state = len(dense), layout.model.d, layout.depth * layout.model.d
        return cls(
            dense.client_ids,
            dense.num_examples,
            dense.metrics,
            np.arange(k + 1) * layout.num_rows,
            np.tile(np.arange(layout.num_rows, dtype=np.int32), k),
            dense.rows[:, :state].reshape(k, layout.depth, d).swapaxes(0, 1).reshape(layout.depth, k * d),
            dense.rows[:, state:],
            np.arange(k + 1) * d,
        )


def _ends(sizes: NDArray[Any]) -> NDArray[np.int64]:
    """Where parts of these sizes begin, one after the other, and where the last ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _check_compact(
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
        or (np.diff(splits) < 0).any()
    ):
        raise Rejected(f"{SPLITS!r} does not divide {len(touched)} touched rows among {k} clients")
    if len(touched) and not (touched.min() >= 0 and touched.max() < layout.num_rows):
        raise Rejected(f"touched rows are not all in [0, {layout.num_rows})")
    descends = np.diff(touched) <= 0
    descends[splits[1:-1][(splits[1:-1] > 0) & (splits[1:-1] < len(touched))] - 1] = False
    if descends.any():
        raise Rejected("touched rows are not ascending, each once")
    offsets = _ends(layout.widths[touched])
    if values.shape != (layout.depth, offsets[-1]):
        raise Rejected(f"{VALUES!r} has shape {values.shape}, expected {(layout.depth, int(offsets[-1]))}")
    if buffers.shape != (k, layout.model.num_buffers):
        raise Rejected(f"{BUFFERS!r} has shape {buffers.shape}, expected {(k, layout.model.num_buffers)}")
    divided: NDArray[np.int64] = offsets[splits]
    return divided
