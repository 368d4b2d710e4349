"""Dense uploads: every client sends all of its model (or of its gradient)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from byzflower.uploads.base import Rejected, Upload
from byzflower.uploads.layout import Layout

ROWS = "rows"


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

    @classmethod
    def names(cls, layout: Layout) -> tuple[str, ...]:
        """The model's own."""
        return layout.names

    @classmethod
    def checked(cls, arrays: Mapping[str, NDArray[Any]], layout: Layout) -> list[NDArray[Any]]:
        """Return one client's arrays if they are the model's.

        Raises:
            Rejected: missing, extra or reordered arrays, another shape or dtype.
        """
        names = tuple(arrays)
        if names != layout.names:
            raise Rejected(_name_fault(names, layout.names))
        values = list(arrays.values())
        cls.check_arrays(values, layout)
        return values

    @staticmethod
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
        """Rebuild what `payload` made, from untrusted arrays."""
        if not cohort:
            single = OwnUpload(client_ids, num_examples, metrics, cls.checked(arrays, layout), layout)
            return cast(Self, single)
        if tuple(arrays) != (ROWS,):
            raise Rejected(f"a cohort sends one array {ROWS!r}, got {_short(list(arrays))}")
        rows = arrays[ROWS]
        expected = (len(client_ids), layout.width)
        if rows.shape != expected:
            raise Rejected(f"cohort matrix has shape {rows.shape}, expected {expected}")
        if rows.dtype != layout.row_dtype:
            raise Rejected(f"cohort matrix has dtype {rows.dtype}, expected {layout.row_dtype}")
        return cls(client_ids, num_examples, metrics, rows)


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
        """See `DenseUpload`."""
        return self._layout.row(self._arrays)

    def write_row(self, index: int, row: NDArray[Any]) -> None:
        """See `DenseUpload`."""
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
        """See `DenseUpload`."""
        return self._upload.row(self._indices[index])

    def write_row(self, index: int, row: NDArray[Any]) -> None:
        """See `DenseUpload`."""
        self._upload.write_row(self._indices[index], row)


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
