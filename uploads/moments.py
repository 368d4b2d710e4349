"""Moments uploads: parameters together with the optimizer's moments, of the rows that a client touched."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from byzflower.uploads.base import Rejected, Upload
from byzflower.uploads.dense import DenseUpload
from byzflower.uploads.layout import Layout

_PREFIX = "moments/"
TOUCHED, SPLITS, VALUES, BUFFERS = "touched", "splits", "values", "buffers"
COMPACT = (TOUCHED, SPLITS, VALUES, BUFFERS)
# Scalars of a slot in a block: with the temporaries of an optimizer's step they stay in the L2 cache.
_BLOCK_SCALARS = 1 << 16


class Touched(NamedTuple):
    """What one client sends: the rows that it touched, and its buffers.

    Attributes:
        rows: (r,) int32 numbers of the rows (see `MomentsLayout`), ascending.
        values: (depth, width of these rows): theta, then each moment.
        buffers: (num_buffers,).
    """

    rows: NDArray[np.int32]
    values: NDArray[Any]
    buffers: NDArray[Any]


class Block(NamedTuple):
    """Neighbouring values of one client, few enough to stay in the cache.

    Attributes:
        own: where they are among the client's, in units.
        units: where they belong in the state, in units; a slice if they are neighbours there, too.
    """

    own: slice
    units: slice | NDArray[np.int64]


def blocks(starts: NDArray[np.int64], rows: NDArray[np.int32], size: int) -> Iterator[Block]:
    """Cut the values of some rows of a state into blocks, also within long rows.

    Args:
        starts: (number of rows in the state + 1,) first unit of each, and where the last one ends.
        rows: ascending; the values are those of these rows, one after the other.
        size: units in a block, at most.
    """
    done = 0
    for few in (rows[first : first + size] for first in range(0, len(rows), size)):
        sizes = starts[few + 1] - starts[few]
        ends = done + np.cumsum(sizes)
        begins = ends - sizes
        shifts = starts[few] - begins
        for start in range(done, int(ends[-1]), size):
            stop = min(start + size, int(ends[-1]))
            first, last = np.searchsorted(ends, [start, stop - 1], "right")
            own, units = slice(start, stop), slice(int(start + shifts[first]), int(stop + shifts[last]))
            if units.stop - units.start == stop - start:
                yield Block(own, units)
                continue
            part = slice(first, last + 1)
            counts = np.minimum(ends[part], stop) - np.maximum(begins[part], start)
            yield Block(own, np.arange(start, stop) + np.repeat(shifts[part], counts))
        done = int(ends[-1])


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
    def rows(self) -> NDArray[np.int32]:
        """(num_rows,) the number of every row."""
        return np.arange(self.num_rows, dtype=np.int32)

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

    @property
    def block_units(self) -> int:
        """Units in a block."""
        return max(1, _BLOCK_SCALARS // self.unit)

    @cached_property
    def unit_starts(self) -> NDArray[np.int64]:
        """(num_rows + 1,) first unit of each row, and where the last one ends."""
        return self.starts // self.unit

    def by_unit(self, state: NDArray[Any]) -> NDArray[Any]:
        """A view (..., units, unit) of (..., columns)."""
        return state.reshape(*state.shape[:-1], -1, self.unit)

    def state(self, row: NDArray[Any]) -> NDArray[Any]:
        """Parameters and moments in a row of `full`: a view (depth, d)."""
        return row[: self.depth * self.model.d].reshape(self.depth, self.model.d)

    def without_untouched(self, client: Touched, rest: NDArray[Any]) -> Touched:
        """Leave out rows that are exactly what a gradient of 0 makes of them; without a copy if none is.

        Args:
            client: what it sent.
            rest: (depth, d) state of a client that touched nothing.
        """
        if len(client.rows) == 0:
            return client
        sizes = self.unit_starts[client.rows + 1] - self.unit_starts[client.rows]
        values, others = self.by_unit(client.values), self.by_unit(rest)
        differs = np.empty(values.shape[1], np.bool_)
        for own, units in blocks(self.unit_starts, client.rows, self.block_units):
            differs[own] = (values[:, own] != others[:, units]).any(axis=(0, 2))
        keep = np.logical_or.reduceat(differs, np.cumsum(sizes) - sizes)
        if keep.all():
            return client
        kept = values.compress(np.repeat(keep, sizes), axis=1).reshape(self.depth, -1)
        return Touched(client.rows[keep], kept, client.buffers)


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

    @staticmethod
    def names(layout: Layout) -> tuple[str, ...]:
        """Names of the full form's arrays, in order."""
        return layout.names

    @staticmethod
    def from_payload(
        arrays: Mapping[str, NDArray[Any]],
        layout: Layout,
        client_ids: list[int],
        num_examples: NDArray[np.float64],
        metrics: list[dict[str, float]],
        *,
        cohort: bool,
    ) -> "MomentsUpload":
        """Rebuild either form from untrusted arrays, as views.

        Raises:
            Rejected: with the reason.
        """
        own = moments_layout(layout)
        if tuple(arrays) != COMPACT:
            dense = DenseUpload.from_payload(arrays, layout, client_ids, num_examples, metrics, cohort=cohort)
            return FullMoments(dense, own)
        touched, splits, values, buffers = (arrays[name] for name in COMPACT)
        offsets = _check_compact(touched, splits, values, buffers, own, len(client_ids))
        return MomentsUpload(
            client_ids,
            num_examples,
            metrics,
            [touched[start:stop] for start, stop in pairwise(splits)],
            [values[:, start:stop] for start, stop in pairwise(offsets)],
            buffers,
        )


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

    def take(self, indices: list[int]) -> MomentsUpload:  # type: ignore[override]
        """See `Upload`."""
        return FullMoments(self._dense.take(indices), self._own)

    def client_bytes(self, layout: Layout) -> list[int]:
        """Bytes of the compact form with all rows."""
        rows = layout.width * layout.row_dtype.itemsize + self._own.rows.nbytes
        return [rows + 2 * np.dtype(np.int64).itemsize] * len(self)


def ends_of(sizes: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
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
