"""The layout of a model's named arrays in one row of the pseudo-gradient matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BUFFER_SUFFIXES = ("running_mean", "running_var", "num_batches_tracked")


def is_buffer(name: str, dtype: np.dtype[Any]) -> bool:
    """Tell batch-norm statistics and counters (averaged, never attacked) from trained parameters."""
    return dtype.kind != "f" or name.rsplit(".", 1)[-1] in _BUFFER_SUFFIXES


@dataclass(frozen=True)
class Layout:
    """Names, shapes and dtypes of a model's arrays, in order, and their columns in a row.

    A row holds the trained parameters first (`d` columns, the part that rules and attacks see), then
    the buffers (`num_buffers` columns).

    Attributes:
        names: array names, in the model's order.
        shapes: their shapes.
        dtypes: their dtypes.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype[Any], ...]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "Layout":
        """Describe a model given as named arrays.

        Raises:
            ValueError: no arrays, or one that is neither floating point nor integer.
        """
        if not arrays:
            raise ValueError("the global model has no arrays")
        for name, array in arrays.items():
            if array.dtype.kind not in "fiub":
                raise ValueError(f"array {name!r} of the global model has unsupported dtype {array.dtype}")
        return cls(
            tuple(arrays),
            tuple(tuple(a.shape) for a in arrays.values()),
            tuple(a.dtype for a in arrays.values()),
        )

    @classmethod
    def of_list(cls, arrays: Sequence[NDArray[Any]]) -> "Layout":
        """Describe a model given as a list, as NumPyClients exchange it; arrays are named by position."""
        return cls.of({str(i): array for i, array in enumerate(arrays)})

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of scalars in each array."""
        return tuple(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes)

    @cached_property
    def buffers(self) -> tuple[bool, ...]:
        """Which arrays are buffers."""
        return tuple(is_buffer(n, t) for n, t in zip(self.names, self.dtypes, strict=True))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First column of each array: parameters from 0, buffers from d."""
        next_column = {False: 0, True: self.d}
        starts = []
        for size, buffer in zip(self.sizes, self.buffers, strict=True):
            starts.append(next_column[buffer])
            next_column[buffer] += size
        return tuple(starts)

    @cached_property
    def d(self) -> int:
        """Number of trained parameters."""
        return sum(s for s, b in zip(self.sizes, self.buffers, strict=True) if not b)

    @cached_property
    def parameters(self) -> tuple[tuple[str, tuple[int, ...], slice], ...]:
        """Name, shape and columns in a row of every array that is no buffer."""
        return tuple(
            (name, shape, slice(start, start + size))
            for name, shape, start, size, buffer in zip(
                self.names, self.shapes, self.starts, self.sizes, self.buffers, strict=True
            )
            if not buffer
        )

    @property
    def parameter_slices(self) -> tuple[slice, ...]:
        """Columns of each array of trained parameters that is not empty, in order: the model's layers."""
        return tuple(columns for _, _, columns in self.parameters if columns.stop > columns.start)

    @cached_property
    def num_buffers(self) -> int:
        """Number of scalars in buffers."""
        return sum(self.sizes) - self.d

    @property
    def width(self) -> int:
        """Columns of a row: d + num_buffers."""
        return self.d + self.num_buffers

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the model's arrays."""
        return sum(size * dtype.itemsize for size, dtype in zip(self.sizes, self.dtypes, strict=True))

    @cached_property
    def row_dtype(self) -> np.dtype[Any]:
        """float64 if any parameter is float64, else float32."""
        return np.dtype(np.float64 if np.dtype(np.float64) in self.dtypes else np.float32)

    def write_row(self, arrays: Sequence[NDArray[Any]], row: NDArray[Any]) -> None:
        """Copy a model's arrays, in order, into a row of `width` columns."""
        for array, start, size in zip(arrays, self.starts, self.sizes, strict=True):
            row[start : start + size] = array.reshape(-1)

    def row(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Flatten a model's arrays, in order, into a new row."""
        row = np.empty(self.width, self.row_dtype)
        self.write_row(arrays, row)
        return row

    def joined(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """A model's arrays as a row that is not to be modified: their own memory, if it is one row's."""
        shared = self._shared_row(arrays)
        return self.row(arrays) if shared is None else shared

    def _shared_row(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
        """The part of one flat array that all arrays are views of, each where it belongs."""
        base = arrays[0].base
        while isinstance(base, np.ndarray) and isinstance(base.base, np.ndarray):
            base = base.base
        if not isinstance(base, np.ndarray) or base.ndim != 1 or base.dtype != self.row_dtype:
            return None
        begin = base.__array_interface__["data"][0]
        first = arrays[0].__array_interface__["data"][0] - begin - self.starts[0] * base.itemsize
        for array, start in zip(arrays, self.starts, strict=True):
            place = array.__array_interface__["data"][0] - begin - start * base.itemsize
            if place != first or array.dtype != base.dtype or not array.flags.c_contiguous:
                return None
        begins, rest = divmod(first, base.itemsize)
        fits = rest == 0 and begins >= 0 and begins + self.width <= len(base)
        return base[begins : begins + self.width] if fits and base.flags.c_contiguous else None

    def views(self, row: NDArray[Any]) -> list[NDArray[Any]]:
        """Split a row into arrays of the model's shapes, in the row's own dtype, without copying."""
        return [
            row[start : start + size].reshape(shape)
            for start, size, shape in zip(self.starts, self.sizes, self.shapes, strict=True)
        ]

    def arrays(self, row: NDArray[Any]) -> list[NDArray[Any]]:
        """Split a row into arrays of the model's shapes and dtypes (integers are rounded)."""
        return [
            view.astype(dtype, copy=False) if dtype.kind == "f" else np.rint(view).astype(dtype)
            for view, dtype in zip(self.views(row), self.dtypes, strict=True)
        ]
