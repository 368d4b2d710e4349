"""Limits on values: what rules can compute with, and what a model's dtypes can hold."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.threads import map_blocks, subnormals_as_zero
from byzflower.uploads.layout import Layout

# Longer rows are quarantined, in models of any dtype: their squares overflow float32. All that rules make of
# shorter ones (fourth powers of n norms, summed, at most) is finite in float64.
MAX_NORM = math.sqrt(float(np.finfo(np.float32).max))
_NOT_FINITE = "NaN or Inf in the upload"
_TOO_LONG = f"so large that its norm is above {MAX_NORM:.3g}, where squares overflow float32"
_BLOCK_SCALARS = 1 << 18


def row_norms(matrix: torch.Tensor) -> torch.Tensor:
    """Euclidean norms of the rows, in their own dtype: inf or NaN where it, or a square, overflows."""
    width = max(1, _BLOCK_SCALARS // max(1, matrix.shape[1]))
    parts = map_blocks(lambda part: norms_of(matrix[part]), len(matrix), width)
    return torch.cat([matrix.new_empty(0), *parts])


@subnormals_as_zero()
def norms_of(rows: torch.Tensor) -> torch.Tensor:
    """The same of a few rows, on this thread."""
    norms: torch.Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms


def fault(*sent: NDArray[Any]) -> str:
    """The reason why values were quarantined: not finite, or too long."""
    return _TOO_LONG if all(np.isfinite(values).all() for values in sent) else _NOT_FINITE


def misfits(
    steps: Callable[[slice], NDArray[Any]], start: NDArray[Any], server_lr: float, layout: Layout
) -> dict[int, str]:
    """Positions of uploads that, alone, would lead to a model that its own dtypes cannot hold, and why.

    Args:
        steps: some columns, all of parameters or all of buffers, of the n rows: (n, c).
        start: (width,) the global row.
        server_lr: step size of parameters; that of buffers is 1.
        layout: the model's layout.
    """
    faults: dict[int, str] = {}
    for name, dtype, columns in narrow_arrays(layout):
        lr = 1.0 if columns.start >= layout.d else server_lr
        alone = start[columns] - lr * steps(columns)
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
