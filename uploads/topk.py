"""Top-k sparse uploads: the most important packs of a model, and one bit per pack that says which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from byzflower.numerics.packs import DEFAULT_PACK_SIZE, Packs
from byzflower.uploads.base import Rejected, Upload
from byzflower.uploads.layout import Layout

MASK, VALUES, BUFFERS = "mask", "values", "buffers"
PACK_SIZE = "pack-size"


class SparseModel(NamedTuple):
    """What one client sends of its model.

    Attributes:
        mask: (P,) which packs.
        values: their parameters, in order; the model's own precision, or float16.
        buffers: (num_buffers,) batch-norm statistics and counters, all of them.
    """

    mask: NDArray[np.bool_]
    values: NDArray[Any]
    buffers: NDArray[Any]

    def arrays(self, layout: Layout) -> list[NDArray[Any]]:
        """What travels: mask bits, values, and the buffers if the model has any."""
        return [np.packbits(self.mask), self.values, *([self.buffers] if layout.num_buffers else [])]


@dataclass
class TopKUpload(Upload):
    """Sparse models of k clients.

    Attributes:
        packs: how the parameters are cut.
        masks: (k, P) which packs each client sends.
        values: of each client the parameters (not updates) of its packs, in order.
        buffers: (k, num_buffers).
    """

    kind: ClassVar[str] = "topk"

    packs: Packs
    masks: NDArray[np.bool_]
    values: list[NDArray[Any]]
    buffers: NDArray[Any]

    @classmethod
    def of_models(
        cls,
        client_ids: list[int],
        num_examples: NDArray[np.float64],
        metrics: list[dict[str, float]],
        packs: Packs,
        models: Sequence[SparseModel],
        layout: Layout,
    ) -> Self:
        """Put k clients' sparse models together."""
        masks = np.array([model.mask for model in models], np.bool_).reshape(-1, packs.count)
        buffers = np.empty((len(models), layout.num_buffers), layout.row_dtype)
        for row, model in zip(buffers, models, strict=True):
            row[:] = model.buffers
        values = [model.values for model in models]
        return cls(client_ids, num_examples, metrics, packs, masks, values, buffers)

    def take(self, indices: list[int]) -> Self:
        """Return the uploads of the clients at these positions."""
        return type(self)(
            [self.client_ids[i] for i in indices],
            self.num_examples[indices],
            [self.metrics[i] for i in indices],
            self.packs,
            self.masks[indices],
            [self.values[i] for i in indices],
            self.buffers[indices],
        )

    def model(self, index: int) -> SparseModel:
        """The sparse model of one client."""
        return SparseModel(self.masks[index], self.values[index], self.buffers[index])

    def payload(self, layout: Layout, *, cohort: bool) -> dict[str, NDArray[Any]]:
        """Masks as bits, values one after the other, and the buffers, if the model has any."""
        names = array_names(layout)
        if not cohort:
            return dict(zip(names, self.model(0).arrays(layout), strict=True))
        values = np.concatenate(self.values) if self.values else np.empty(0, layout.row_dtype)
        return dict(zip(names, (np.packbits(self.masks, axis=1), values, self.buffers), strict=False))

    def client_bytes(self, layout: Layout) -> list[int]:
        """Mask bits, kept values and buffers of each client."""
        fixed = self.packs.mask_bytes + layout.num_buffers * layout.row_dtype.itemsize
        return [fixed + values.nbytes for values in self.values]


@dataclass(frozen=True)
class TopKFormat:
    """How a server reads top-k uploads: the size of a pack is its to say, not the clients'.

    Attributes:
        pack_size: scalars in a pack.
    """

    pack_size: int = DEFAULT_PACK_SIZE

    def names(self, layout: Layout) -> tuple[str, ...]:
        """See `array_names`."""
        return array_names(layout)

    def from_payload(
        self,
        arrays: Mapping[str, NDArray[Any]],
        layout: Layout,
        client_ids: list[int],
        num_examples: NDArray[np.float64],
        metrics: list[dict[str, float]],
        *,
        cohort: bool,
    ) -> TopKUpload:
        """Rebuild what `TopKUpload.payload` made, from untrusted arrays.

        Raises:
            Rejected: other arrays, a mask of another length or with bits beyond its last pack, more or
                fewer values than the mask announces, another dtype.
        """
        names = self.names(layout)
        if tuple(arrays) != names:
            raise Rejected(f"a top-k upload has the arrays {', '.join(names)}, got {[*arrays]!s:.200}")
        packs, k = Packs(layout.d, self.pack_size), len(client_ids)
        masks = _masks(arrays[MASK], (k, packs.mask_bytes) if cohort else (packs.mask_bytes,), packs)
        values = _values(arrays[VALUES], masks, packs, layout)
        buffers = np.zeros((k, 0), layout.row_dtype)
        if layout.num_buffers:
            shape = (k, layout.num_buffers) if cohort else (layout.num_buffers,)
            _check(arrays[BUFFERS], BUFFERS, shape, (layout.row_dtype,))
            buffers = arrays[BUFFERS].reshape(k, -1)
        return TopKUpload(client_ids, num_examples, metrics, packs, masks, values, buffers)


def array_names(layout: Layout) -> tuple[str, ...]:
    """Names of the arrays of a top-k upload, in order."""
    return (MASK, VALUES, BUFFERS) if layout.num_buffers else (MASK, VALUES)


def _masks(bits: NDArray[Any], shape: tuple[int, ...], packs: Packs) -> NDArray[np.bool_]:
    _check(bits, MASK, shape, (np.dtype(np.uint8),))
    masks = np.unpackbits(bits.reshape(-1, packs.mask_bytes), axis=1).astype(np.bool_)
    if masks[:, packs.count :].any():
        raise Rejected(f"the mask has bits set beyond its {packs.count} packs")
    return masks[:, : packs.count]


def _values(
    values: NDArray[Any], masks: NDArray[np.bool_], packs: Packs, layout: Layout
) -> list[NDArray[Any]]:
    counts = [packs.scalars(mask) for mask in masks]
    _check(values, VALUES, (sum(counts),), (layout.row_dtype, np.dtype(np.float16)))
    return np.split(values, np.cumsum(counts))[:-1]


def _check(array: NDArray[Any], name: str, shape: tuple[int, ...], dtypes: Sequence[np.dtype[Any]]) -> None:
    if array.shape != shape:
        raise Rejected(f"array {name!r} has shape {array.shape}, expected {shape}")
    if array.dtype not in dtypes:
        raise Rejected(f"array {name!r} has dtype {array.dtype}, expected {' or '.join(map(str, dtypes))}")
