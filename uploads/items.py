"""Sparse uploads of recommenders: each client sends gradient rows for the items that it touched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from byzflower.uploads.base import Rejected, Upload
from byzflower.uploads.layout import Layout

SPLITS, ITEMS, ROWS, DENSE = "splits", "items", "rows", "dense"


@dataclass
class ItemUpload(Upload):
    """Gradient rows of k clients, each for items of its own, and what they send of shared parameters.

    The model's first array is the (m, d) item table; all others are dense.

    Attributes:
        splits: (k + 1,) int64, client i's rows are ``rows[splits[i]:splits[i + 1]]``.
        items: (nnz,) int32, ascending within a client, each once.
        rows: (nnz, d) float32.
        dense: (k, w) float32 gradients for the parameters outside the item table; w may be 0.
    """

    kind: ClassVar[str] = "items"

    splits: NDArray[np.int64]
    items: NDArray[np.int32]
    rows: NDArray[np.float32]
    dense: NDArray[np.float32]

    @classmethod
    def empty(cls, layout: Layout) -> Self:
        """The upload of no clients."""
        m, d = layout.shapes[0]
        rows, dense = np.empty((0, d), np.float32), np.empty((0, layout.width - m * d), np.float32)
        return cls([], np.empty(0), [], np.zeros(1, np.int64), np.empty(0, np.int32), rows, dense)

    @property
    def owners(self) -> NDArray[np.int64]:
        """(nnz,) the position of each row's client."""
        return np.repeat(np.arange(len(self)), np.diff(self.splits))

    def take(self, indices: list[int]) -> Self:
        """Return the uploads of the clients at these positions."""
        sizes = np.diff(self.splits)[indices]
        splits = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        kept = np.repeat(self.splits[:-1][indices] - splits[:-1], sizes) + np.arange(splits[-1])
        return type(self)(
            [self.client_ids[i] for i in indices],
            self.num_examples[indices],
            [self.metrics[i] for i in indices],
            splits,
            self.items[kept],
            self.rows[kept],
            self.dense[indices],
        )

    def payload(self, layout: Layout, *, cohort: bool) -> dict[str, NDArray[Any]]:
        """A cohort's arrays, or one client's, who needs no splits."""
        splits = {SPLITS: self.splits} if cohort else {}
        dense = {DENSE: self.dense if cohort else self.dense[0]} if self.dense.shape[1] else {}
        return {**splits, ITEMS: self.items, ROWS: self.rows, **dense}

    def client_bytes(self, layout: Layout) -> list[int]:
        """An index and a row for each item, and the dense part."""
        _, d = layout.shapes[0]
        sizes = np.diff(self.splits) * (self.items.itemsize + d * self.rows.itemsize)
        return list((sizes + self.dense.shape[1] * self.dense.itemsize).tolist())

    @classmethod
    def names(cls, layout: Layout) -> tuple[str, ...]:
        """Items and rows, and a dense part if the model has more than the item table."""
        m, d = layout.shapes[0]
        return (ITEMS, ROWS, DENSE) if layout.width > m * d else (ITEMS, ROWS)

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
        """Rebuild what `payload` made, from untrusted arrays.

        One client's arrays go by position (a NumPyClient returns a list): items, rows and, if the model
        has more than the item table, one row for the rest. Whether values are finite is not looked at.

        Raises:
            Rejected: another number of arrays, shape or dtype; splits that do not fit; items out of range
                or not strictly ascending.
        """
        k, (m, d) = len(client_ids), layout.shapes[0]
        width = layout.width - m * d
        values = list(arrays.values())
        expected = [*([SPLITS] if cohort else []), *cls.names(layout)]
        if len(values) != len(expected) or (cohort and list(arrays) != expected):
            raise Rejected(f"{len(values)} arrays where {', '.join(expected)} are expected")
        parts = dict(zip(expected, values, strict=True))
        items, rows = parts[ITEMS], parts[ROWS]
        splits = parts[SPLITS] if cohort else np.array([0, len(items) if items.ndim else 0])
        dense = parts.get(DENSE, np.empty((k, 0), np.float32))
        dense = dense if cohort or not width else dense[None]
        _expect(SPLITS, splits, np.int64, (k + 1,))
        _expect(ITEMS, items, np.int32, (items.size,))
        _expect(ROWS, rows, np.float32, (len(items), d))
        _expect(DENSE, dense, np.float32, (k, width))
        _check_items(splits, items, m)
        return cls(client_ids, num_examples, metrics, splits, items, rows, dense)


def _expect(name: str, array: NDArray[Any], dtype: type[np.generic], shape: Sequence[int]) -> None:
    if array.dtype != dtype:
        raise Rejected(f"{name} has dtype {array.dtype}, expected {np.dtype(dtype)}")
    if array.shape != tuple(shape):
        raise Rejected(f"{name} has shape {array.shape}, expected {tuple(shape)}")


def _check_items(splits: NDArray[np.int64], items: NDArray[np.int32], num_items: int) -> None:
    if splits[0] != 0 or splits[-1] != len(items) or (splits[1:] < splits[:-1]).any():
        raise Rejected(f"splits do not run from 0 to {len(items)} without going back")
    if len(items) == 0:
        return
    if items.min() < 0 or items.max() >= num_items:
        raise Rejected(f"items from {items.min()} to {items.max()}, expected 0 to {num_items - 1}")
    begins = np.zeros(len(items) + 1, bool)
    begins[splits] = True
    if not ((items[1:] > items[:-1]) | begins[1:-1]).all():
        raise Rejected("items are not strictly ascending within a client")


def join(uploads: Sequence[ItemUpload]) -> ItemUpload:
    """One upload of all the clients of several (at least one), in their order; no copy of a single one."""
    if len(uploads) == 1:
        return uploads[0]
    sizes = np.concatenate([np.diff(upload.splits) for upload in uploads])
    return ItemUpload(
        [client for upload in uploads for client in upload.client_ids],
        np.concatenate([upload.num_examples for upload in uploads]),
        [metrics for upload in uploads for metrics in upload.metrics],
        np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]),
        _concatenated([upload.items for upload in uploads]),
        _concatenated([upload.rows for upload in uploads]),
        _concatenated([upload.dense for upload in uploads]),
    )


def _concatenated(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The arrays one after another; no copy if all but one are empty."""
    filled = [array for array in arrays if array.size] or arrays
    return filled[0] if len(filled) == 1 else np.concatenate(filled)
