"""Top-k sparse uploads: the most important packs of a model, and one bit per pack that says which."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.packed_rows import PackedRows
from byzflower.numerics.packs import DEFAULT_PACK_SIZE, Packs
from byzflower.numerics.rows import view_of
from byzflower.numerics.threads import map_blocks
from byzflower.uploads.base import Rejected, Rejection, Upload
from byzflower.uploads.kind import UploadKind, dense_mixture
from byzflower.uploads.layout import Layout
from byzflower.uploads.limits import MAX_NORM, fault, misfits, norms_of
from byzflower.uploads.round import Broadcast, Forged, Memory, Place, UploadRound, row_bytes

Importance = Literal["update", "parameter"]
Densify = Literal["zero", "contributors"]
MASK, VALUES, BUFFERS = "mask", "values", "buffers"
PACK_SIZE = "pack-size"
RESIDUAL = "topk-residual"
_PACK_BYTES = 10  # of one client's pack: two booleans of masks and a rank


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


@dataclass
class TopKRound(UploadRound):
    """A round's top-k uploads, of which only views are taken.

    Attributes:
        upload: the n sparse models.
        start: (width,) the global row that they started from.
    """

    upload: TopKUpload
    start: NDArray[Any]
    _rows: PackedRows | None = field(default=None, repr=False)

    @property
    def masks(self) -> NDArray[np.bool_]:  # type: ignore[override]
        """The (n, P) packs that were sent."""
        return self.upload.masks

    def gradients(self, device: torch.device) -> PackedRows:
        """Updates in the packs that each client sent, 0 elsewhere."""
        if self._rows is None or self._rows.device != device:
            upload = self.upload
            self._rows = PackedRows(upload.packs, upload.masks, upload.values, self.start[: self.d], device)
        return self._rows

    @property
    def buffers(self) -> torch.Tensor:
        """The (n, num_buffers) steps of the buffers, which everybody sends."""
        return torch.from_numpy(self.start[self.d :] - self.upload.buffers)

    def steps(self, columns: slice) -> NDArray[Any]:
        """Some columns, all of parameters or all of buffers, of the n whole rows: (n, c)."""
        if columns.start >= self.d:
            return self.buffers.numpy()[:, columns.start - self.d : columns.stop - self.d]
        block: NDArray[Any] = self.gradients(torch.device("cpu")).block(columns).numpy()
        return block

    def matrix(self) -> torch.Tensor:
        """The updates in all columns: (n, d), of no clients, too."""
        if not self.client_ids:
            return torch.from_numpy(np.empty((0, self.d), self.start.dtype))
        return super().matrix()

    def is_short(self, i: int) -> bool:
        """Whether a row, buffers and all, is finite and not longer than `MAX_NORM`."""
        with np.errstate(over="ignore", invalid="ignore"):
            buffers = (self.start[self.d :] - self.upload.buffers[i]).astype(np.float64)
            one = self.gradients(torch.device("cpu")).take([i])
            return float(one.squared_norms) + float(buffers @ buffers) <= MAX_NORM**2

    def leave_out(self, faults: Mapping[int, str]) -> None:
        """Leave out the clients at these positions, for these reasons."""
        if not faults:
            return
        self.rejections += [Rejection(self.client_ids[i], faults[i]) for i in sorted(faults)]
        kept = [i for i in range(len(self.client_ids)) if i not in faults]
        self.upload, self._rows = self.upload.take(kept), None
        self.client_ids = [self.client_ids[i] for i in kept]
        self.num_examples = self.num_examples[kept]


@dataclass(frozen=True)
class TopK(UploadKind):
    """Every client sends its most important packs: g_i = w - w_i there, and nothing elsewhere.

    Attributes:
        ratio: share of the packs to keep, in (0, 1]: the ceil(ratio P) most important ones.
        importance: a pack's L1 norm in the client's update w_i - w_G ("update") or in its parameters
            w_i ("parameter").
        residual: error feedback: add what was not sent (or was rounded) to the next round's update.
        half: send float16 instead of the model's own precision. Updates smaller than a 2000th of their
            parameter lose their sign.
        pack_size: scalars in a pack, at least 1; the server's to say.
        densify: what a rule sees of packs that a client did not send: an update of 0 ("zero"), or not that
            client ("contributors", for coordinate-wise rules and means).
    """

    name: ClassVar[str] = "topk"

    ratio: float = 0.5
    importance: Importance = "update"
    residual: bool = False
    half: bool = False
    pack_size: int = DEFAULT_PACK_SIZE
    densify: Densify = "zero"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: one of them out of its range.
        """
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {self.ratio}")
        if self.importance not in ("update", "parameter"):
            raise ValueError(f"importance must be update or parameter, got {self.importance!r}")
        if self.pack_size < 1:
            raise ValueError(f"pack_size must be at least 1, got {self.pack_size}")
        if self.densify not in ("zero", "contributors"):
            raise ValueError(f"densify must be zero or contributors, got {self.densify!r}")

    @property
    def by_contributors(self) -> bool:  # type: ignore[override]
        """Whether rules see each pack's contributors alone."""
        return self.densify == "contributors"

    # -- what a client sends ---------------------------------------------------------------------

    def told(self) -> dict[str, Any]:
        """The name, and how to choose packs."""
        own = {
            "ratio": self.ratio,
            "importance": self.importance,
            "residual": self.residual,
            "half": self.half,
        }
        return {
            **super().told(),
            PACK_SIZE: self.pack_size,
            **{f"{self.name}-{k}": v for k, v in own.items()},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """How the server wants packs to be chosen; what it does not say is as by default."""
        own = {
            key: config[f"{cls.name}-{key}"]
            for key in ("ratio", "importance", "residual", "half")
            if f"{cls.name}-{key}" in config
        }
        return cls(**own, pack_size=int(config.get(PACK_SIZE, DEFAULT_PACK_SIZE)))

    def everything(self) -> "TopK":
        """All packs."""
        return dataclasses.replace(self, ratio=1.0)

    def encode(
        self, learned: Sequence[NDArray[Any]], sent: Sequence[NDArray[Any]], model: Layout, memory: Memory
    ) -> list[NDArray[Any]]:
        """Keep the most important packs of the trained model; what is left out may wait in `memory`."""
        trained, start = model.row(learned), model.joined(sent)
        if self.residual and RESIDUAL in memory:
            trained[: model.d] += memory[RESIDUAL]
        sparse = sparsify(trained, start, model, self)
        if self.residual:
            left = trained[: model.d] - start[: model.d]
            columns = Packs(model.d, self.pack_size).columns(sparse.mask)
            left[columns] = trained[: model.d][columns] - sparse.values
            memory[RESIDUAL] = left
        return sparse.arrays(model)

    def names(self, layout: Layout) -> tuple[str, ...]:
        """Mask, values, and buffers if the model has any."""
        return array_names(layout)

    def join(self, uploads: Sequence[TopKUpload], layout: Layout) -> TopKUpload:
        """Views of them all."""
        places = [(upload, i) for upload in uploads for i in range(len(upload))]
        return TopKUpload.of_models(
            [upload.client_ids[i] for upload, i in places],
            np.array([upload.num_examples[i] for upload, i in places]),
            [upload.metrics[i] for upload, i in places],
            Packs(layout.d, self.pack_size),
            [upload.model(i) for upload, i in places],
            layout,
        )

    # -- what the server reads -------------------------------------------------------------------

    def decode(
        self,
        arrays: Mapping[str, NDArray[Any]],
        layout: Layout,
        client_ids: list[int],
        num_examples: NDArray[np.float64],
        metrics: list[dict[str, float]],
        *,
        cohort: bool,
    ) -> TopKUpload:
        """Bits, values and buffers, from untrusted arrays.

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

    def rows(self, uploads: Sequence[TopKUpload], sent: Broadcast, server_lr: float) -> TopKRound:
        """Stack top-k uploads without copying their values; rows not finite or too long are quarantined."""
        layout, start = sent
        joined = self.join(uploads, layout)
        order = sorted(range(len(joined)), key=joined.client_ids.__getitem__)
        upload = joined.take(order)
        stacked = TopKRound(upload.client_ids, upload.num_examples, [], layout.d, upload, start)
        if not order:
            return stacked
        stacked.leave_out({i: fault(upload.values[i], upload.buffers[i]) for i in _too_long(stacked)})
        if stacked.client_ids:
            stacked.leave_out(misfits(stacked.steps, start, server_lr, layout))
        return stacked

    def upload_bytes(self, layout: Layout) -> float:
        """Bytes as `UploadKind` has them; contributors' packs are read where they are."""
        spared = row_bytes(layout) if self.by_contributors else 0
        return super().upload_bytes(layout) - spared + _PACK_BYTES * Packs(layout.d, self.pack_size).count

    def info(self, sent_bytes: int, clients: int, layout: Layout) -> dict[str, float]:
        """The share of a dense model's bytes that was sent."""
        return {"bytes-to-dense": sent_bytes / (clients * layout.nbytes)} if clients else {}

    # -- what an adversary writes ----------------------------------------------------------------

    def crafted(
        self,
        clients: list[int],
        gradients: torch.Tensor,
        benign: Callable[[], TopKRound],
        place: Place | None,
    ) -> Forged:
        """Choose the packs: as many as benign clients send, the most important ones, or the attack's."""
        others = benign()
        masks, packs = others.masks, others.upload.packs
        budget = int(np.median(masks.sum(axis=1))) if len(masks) else packs.count
        if place is not None and len(masks):
            sent = torch.from_numpy(masks)
            return Forged(clients, *place(gradients, others.matrix(), sent, packs.size, budget))
        chosen = [packs.largest(packs.importance(row), budget) for row in gradients.numpy()]
        return Forged(clients, gradients, torch.from_numpy(np.stack(chosen)))

    def mixture(self, benign: TopKRound, clients: list[int]) -> Callable[[torch.Tensor], PackedRows]:
        """Sparse rows; the crafted ones have the packs that `crafted` chooses."""
        dense = dense_mixture(benign, clients)
        order = {c: i for i, c in enumerate(sorted([*benign.client_ids, *clients]))}
        masks = torch.empty(len(order), benign.upload.packs.count, dtype=torch.bool)
        masks[[order[c] for c in benign.client_ids]] = torch.from_numpy(benign.masks)
        theirs = [order[c] for c in clients]

        def gradients(crafted: torch.Tensor) -> PackedRows:
            rows = dense(crafted)
            masks[theirs] = self.crafted(clients, rows[theirs], lambda: benign, None).masks
            return PackedRows.of_matrix(rows, masks, benign.upload.packs.size)

        return gradients

    def forge(self, upload: TopKUpload, forged: Forged, sent: Broadcast) -> TopKUpload:
        """Overwrite masks and values of the forged clients."""
        masks, values = upload.masks.copy(), [*upload.values]
        for i, position in forged.positions(upload.client_ids):
            masks[i], gradient = forged.masks[position].numpy(), forged.rows[position].numpy()
            columns = upload.packs.columns(masks[i])
            own = sent.row[: upload.packs.d][columns] - gradient[columns]
            with np.errstate(over="ignore"):
                values[i] = own.astype(values[i].dtype)
        return dataclasses.replace(upload, masks=masks, values=values)


def _too_long(stacked: TopKRound) -> list[int]:
    """Positions of rows, buffers and all, that are not finite or longer than `MAX_NORM`."""
    # By the triangle inequality most need not be subtracted.
    parts = [view_of(part) for part in (stacked.start, *stacked.upload.values, *stacked.upload.buffers)]
    lengths = map_blocks(lambda part: _length(parts[part.start]), len(parts), 1)
    n = len(stacked.client_ids)
    sums = [lengths[0] + lengths[1 + i] + lengths[1 + n + i] for i in range(n)]
    return [i for i, length in enumerate(sums) if not length <= MAX_NORM and not stacked.is_short(i)]


def _length(row: torch.Tensor) -> float:
    return float(norms_of((row.float() if row.dtype == torch.float16 else row)[None]))


def sparsify(trained: NDArray[Any], start: NDArray[Any], layout: Layout, kind: TopK) -> SparseModel:
    """Keep the most important packs of a trained model.

    Args:
        trained: (width,) row of the model to upload.
        start: (width,) row of the global model.
        layout: of both rows.
        kind: which packs, and how.
    """
    d, packs = layout.d, Packs(layout.d, kind.pack_size)
    values = trained[:d]
    importance = packs.importance(values - start[:d] if kind.importance == "update" else values)
    mask = packs.largest(importance, packs.quota(kind.ratio))
    kept = values[packs.columns(mask)]
    with np.errstate(over="ignore"):
        return SparseModel(mask, kept.astype(np.float16) if kind.half else kept, trained[d:].copy())


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
