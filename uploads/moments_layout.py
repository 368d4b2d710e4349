"""How a model's parameters lie in a row with an optimizer's moments, and how to walk through some of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.threads import map_blocks
from byzflower.uploads.layout import Layout
from byzflower.uploads.limits import held, narrow_arrays

T = TypeVar("T")
Units = slice | torch.Tensor

_PREFIX = "moments/"
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

    @cached_property
    def precision(self) -> torch.dtype:
        """The type of the least precise of the parameters."""
        kinds = [torch.from_numpy(np.empty(0, kind)).dtype for kind in self._parameter_dtypes]
        return min(kinds, key=lambda kind: torch.finfo(kind).bits)

    @property
    def _parameter_dtypes(self) -> list[np.dtype[Any]]:
        dtypes = dict(zip(self.model.names, self.model.dtypes, strict=True))
        return [dtypes[name] for name, _, _ in self.model.parameters]

    @cached_property
    def _narrow(self) -> list[tuple[str, np.dtype[Any], slice]]:
        return narrow_arrays(self.model)

    def misfit(self, client: Touched) -> str | None:
        """Why the model's own dtypes cannot hold what a client sent, or None; buffers are values here."""
        if not self._narrow:
            return None
        ends = ends_of(self.widths[client.rows])
        for name, dtype, columns in self._narrow:
            if columns.start >= self.model.d:
                values = client.buffers[columns.start - self.model.d : columns.stop - self.model.d]
            else:
                rows = np.searchsorted(self.starts, [columns.start, columns.stop])
                first, last = ends[np.searchsorted(client.rows, rows)]
                values = client.values[:, first:last]
            if not held(values, dtype).all():
                return f"values of array {name!r} that {dtype} cannot hold"
        return None

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


def map_units(
    layout: MomentsLayout,
    client: Touched,
    starts: NDArray[np.int64],
    work: Callable[[torch.Tensor, Units], T],
) -> list[T]:
    """Call `work` with all of a client's values, by blocks, on all cores; results come in their order.

    Args:
        layout: of model and moments.
        client: what it sent.
        starts: first unit of each row of a state in which the client's rows are numbered.
        work: is given a copy of values (depth, units, unit), and the units of the state that they are of.
    """
    values = layout.by_unit(client.values)
    parts = list(blocks(starts, client.rows, layout.block_units))

    def on_block(one: slice) -> T:
        own, units = parts[one.start]
        after = torch.from_numpy(np.array(values[:, own], order="C"))
        return work(after, units if isinstance(units, slice) else torch.from_numpy(units))

    return map_blocks(on_block, len(parts), 1)


def ends_of(sizes: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
    """Where parts of these sizes begin, one after the other, and where the last ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
