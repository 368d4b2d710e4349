"""Tiny models, and how their arrays stand in a row: trained parameters first, then buffers."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np


class Model:
    """Named arrays.

    A row holds the trained parameters (floating point, and no batch-norm statistics) of all arrays, then
    the buffers; it is float64 here, and in the project float64 only if an array is.
    """

    def __init__(self, *arrays: tuple[str, tuple[int, ...], str]) -> None:
        self.names = [name for name, _, _ in arrays]
        self.shapes = [shape for _, shape, _ in arrays]
        self.dtypes = [np.dtype(dtype) for _, _, dtype in arrays]
        self.sizes = [int(np.prod(shape)) for shape in self.shapes]
        buffer = [
            dtype.kind != "f" or "running" in name
            for name, dtype in zip(self.names, self.dtypes, strict=True)
        ]
        self.d = sum(size for size, b in zip(self.sizes, buffer, strict=True) if not b)
        self.width = sum(self.sizes)
        starts = {False: 0, True: self.d}
        self.places: list[slice] = []
        for size, b in zip(self.sizes, buffer, strict=True):
            self.places.append(slice(starts[b], starts[b] + size))
            starts[b] += size
        self.buffer = buffer
        self.row_dtype = np.dtype(np.float64 if np.dtype(np.float64) in self.dtypes else np.float32)

    @property
    def num_buffers(self) -> int:
        """Columns of buffers."""
        return self.width - self.d

    def row(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Flatten arrays, in order: (width,) float64."""
        row = np.empty(self.width)
        for array, place in zip(arrays, self.places, strict=True):
            row[place] = array.reshape(-1)
        return row

    def arrays(self, row: np.ndarray) -> list[np.ndarray]:
        """Split a row into arrays of the model's shapes and dtypes; integers are rounded."""
        with np.errstate(over="ignore", invalid="ignore"):
            return [
                (np.rint(row[place]) if dtype.kind == "i" else row[place]).astype(dtype).reshape(shape)
                for place, shape, dtype in zip(self.places, self.shapes, self.dtypes, strict=True)
            ]

    @cached_property
    def eps(self) -> np.ndarray:
        """(width,) relative error of storing each column as the model's array."""
        out = np.empty(self.width)
        for place, dtype in zip(self.places, self.dtypes, strict=True):
            out[place] = np.finfo(dtype).eps if dtype.kind == "f" else 0.0
        return out

    @cached_property
    def largest(self) -> np.ndarray:
        """(width,) largest value that each column's array can hold."""
        out = np.empty(self.width)
        for place, dtype in zip(self.places, self.dtypes, strict=True):
            out[place] = np.finfo(dtype).max if dtype.kind == "f" else np.iinfo(dtype).max
        return out

    @cached_property
    def whole(self) -> np.ndarray:
        """(width,) which columns are integers."""
        out = np.zeros(self.width, bool)
        for place, dtype in zip(self.places, self.dtypes, strict=True):
            out[place] = dtype.kind == "i"
        return out


_F2, _F4, _F8, _I8 = "<f2", "<f4", "<f8", "<i8"
MODELS = {
    "plain": Model(("w", (2, 3), _F4), ("b", (3,), _F4)),
    "norm": Model(
        ("w", (2, 3), _F4), ("bn.running_var", (2,), _F4), ("bn.num_batches_tracked", (), _I8), ("c", (), _F4)
    ),
    "half": Model(("w", (2, 3), _F2), ("b", (3,), _F2)),
    "double": Model(("w", (2, 3), _F8), ("b", (3,), _F8)),
    "mixed": Model(("w", (2, 3), _F4), ("v", (4,), _F8)),
    "table": Model(("item.weight", (4, 2), _F4)),
    "table-dense": Model(("item.weight", (5, 2), _F4), ("bias", (3,), _F4)),
}
