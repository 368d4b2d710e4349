"""Sparse uploads of recommenders: each client sends gradient rows for the items that it touched."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.adam import AdamState
from byzflower.numerics.item_rows import ItemRows, gather
from byzflower.numerics.rows import view_of
from byzflower.uploads.base import Rejected, Rejection, Upload
from byzflower.uploads.kind import UploadKind
from byzflower.uploads.layout import Layout
from byzflower.uploads.limits import MAX_NORM, fault, row_norms
from byzflower.uploads.round import Aggregate, Broadcast, Forged, UploadRound, row_bytes

ServerOptimizer = Literal["sgd", "adam"]
_ITEM_BYTES = 120
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

    def part(self, indices: list[int]) -> Self:
        """The uploads of the clients at these ascending positions; views of all, or of the first ones."""
        if len(indices) == len(self):
            return self
        if indices != list(range(len(indices))):
            return self.take(indices)
        rows = slice(0, self.splits[len(indices)])
        return dataclasses.replace(
            self,
            client_ids=self.client_ids[: len(indices)],
            num_examples=self.num_examples[: len(indices)],
            metrics=self.metrics[: len(indices)],
            splits=self.splits[: len(indices) + 1],
            items=self.items[rows],
            rows=self.rows[rows],
            dense=self.dense[: len(indices)],
        )


class CraftedItems(NamedTuple):
    """What made-up users upload.

    Attributes:
        chosen: (f, m) bool, which user sends a row for which item.
        rows: (m, d) the row of an item, whoever sends it, or (f, m, d).
        dense: (w,) what each sends for the parameters outside the item table.
    """

    chosen: torch.Tensor
    rows: torch.Tensor
    dense: torch.Tensor


@dataclass
class ItemRound(UploadRound):
    """A round's rows by item; clients are in any order, rows are not copied.

    Attributes:
        upload: of the clients.
        norms: (nnz,) of the upload's rows.
        num_items: m.
    """

    upload: ItemUpload
    norms: NDArray[np.float32]
    num_items: int

    def gradients(self, device: torch.device) -> "ItemRound":
        """Itself: rules read rows item by item."""
        return self

    def matrix(self) -> torch.Tensor:
        """There is none: what a client did not send is no 0.

        Raises:
            TypeError: always.
        """
        raise TypeError("uploads per item are no matrix")

    @property
    def buffers(self) -> torch.Tensor:
        """None: everything outside the item table is aggregated by the rule."""
        return torch.empty(len(self.client_ids), 0)

    def by_item(self) -> ItemRows:
        """The rows of each item, in the order of the clients' ids."""
        upload = self.upload
        clients = np.array(upload.client_ids, np.uint64)
        return ItemRows(upload.rows, clients, upload.splits, upload.items, self.num_items)

    def dense(self) -> torch.Tensor:
        """(n, w) gradients outside the item table, in the order of the clients' ids."""
        return torch.from_numpy(self.upload.dense[np.argsort(np.array(self.upload.client_ids, np.uint64))])

    def largest(self) -> NDArray[np.float32]:
        """Norm of the longest row of each client that sent any."""
        splits = self.upload.splits
        largest: NDArray[np.float32] = np.maximum.reduceat(self.norms, splits[:-1][splits[:-1] < splits[1:]])
        return largest

    def longer(self, limit: float, items: NDArray[np.int64]) -> dict[int, tuple[int, float]]:
        """Clients with a row longer than a limit for one of these items: client -> item, norm."""
        upload = self.upload
        places = np.flatnonzero((self.norms > limit) & np.isin(upload.items, items))
        owners = upload.owners[places]
        return {
            upload.client_ids[owner]: (int(upload.items[place]), float(self.norms[place]))
            for owner, place in zip(owners.tolist(), places.tolist(), strict=True)
        }


class Items(UploadKind):
    """Every client sends gradient rows for the items that it touched; rules aggregate item by item.

    The model's first array is the (m, d) item table. Whatever else it has is sent densely.
    """

    name: ClassVar[str] = "items"
    learned: ClassVar[Literal["model", "gradient"]] = "gradient"
    by_item: ClassVar[bool] = True

    def __init__(self, server_optimizer: ServerOptimizer = "sgd") -> None:
        """Choose how the server steps.

        Args:
            server_optimizer: "sgd", or "adam", which keeps moments of every item that only aggregates of
                that item change.

        Raises:
            ValueError: another one.
        """
        if server_optimizer not in ("sgd", "adam"):
            raise ValueError(f"server_optimizer must be sgd or adam, got {server_optimizer!r}")
        self.server_optimizer = server_optimizer
        self._adam = AdamState()
        self._next = self._adam

    # -- what a client sends ---------------------------------------------------------------------

    def names(self, layout: Layout) -> tuple[str, ...]:
        """Items and rows, and a dense part if the model has more than the item table."""
        m, d = layout.shapes[0]
        return (ITEMS, ROWS, DENSE) if layout.width > m * d else (ITEMS, ROWS)

    def join(self, uploads: Sequence[ItemUpload], layout: Layout) -> ItemUpload:
        """See the function of this name."""
        return join(uploads) if uploads else ItemUpload.empty(layout)

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
    ) -> ItemUpload:
        """Rebuild what `ItemUpload.payload` made, from untrusted arrays.

        One client's arrays go by position (a NumPyClient returns a list): items, rows and, if the model
        has more than the item table, one row for the rest. Whether values are finite is not looked at.

        Raises:
            Rejected: another number of arrays, shape or dtype; splits that do not fit; items out of range
                or not strictly ascending.
        """
        k, (m, d) = len(client_ids), layout.shapes[0]
        width = layout.width - m * d
        values = list(arrays.values())
        expected = [*([SPLITS] if cohort else []), *self.names(layout)]
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
        return ItemUpload(client_ids, num_examples, metrics, splits, items, rows, dense)

    def rows(self, uploads: Sequence[ItemUpload], sent: Broadcast, server_lr: float) -> ItemRound:
        """Keep the clients whose rows are all finite and of bounded length."""
        upload = self.join(uploads, sent.layout)
        norms = row_norms(view_of(upload.rows)).numpy()
        fit = row_norms(view_of(upload.dense)).numpy() <= MAX_NORM
        long = np.flatnonzero(~(norms <= MAX_NORM))
        fit[np.searchsorted(upload.splits, long, "right") - 1] = False
        rejections = []
        if not fit.all():
            bad = [upload.take([i]) for i in np.flatnonzero(~fit).tolist()]
            rejections = [Rejection(one.client_ids[0], fault(one.rows, one.dense)) for one in bad]
            norms = norms[fit[upload.owners]]
            upload = upload.take(np.flatnonzero(fit).tolist())
        order = np.argsort(np.array(upload.client_ids, np.uint64))
        clients = [upload.client_ids[i] for i in order]
        m, _ = sent.layout.shapes[0]
        sizes = upload.num_examples[order]
        return ItemRound(clients, sizes, rejections, sent.layout.width, upload, norms, m)

    def step(self, rows: ItemRound, aggregate: Aggregate, sent: Broadcast, server_lr: float) -> NDArray[Any]:
        """Step the items that move, and what is outside the table."""
        gradient = aggregate.gradient.numpy()
        if self.server_optimizer == "adam":
            moves = np.ones(len(gradient), bool) if aggregate.moves is None else aggregate.moves.numpy()
            gradient, self._next = self._adam.direction(gradient, moves)
        new: NDArray[Any] = sent.row - np.float32(server_lr) * gradient
        return new

    def taken(self, new: NDArray[Any], sent: Broadcast) -> None:
        """Keep Adam's moments of this step."""
        self._adam = self._next

    def upload_bytes(self, layout: Layout) -> float:
        """Bytes as `UploadKind` has them.

        An upload as it arrived, put together with the others', and once more without those that are not
        finite; the number of every item, its places by client and by item, and what a rule notes of its row.
        """
        return 3.2 * row_bytes(layout) + _ITEM_BYTES * layout.shapes[0][0]

    # -- what an adversary writes ----------------------------------------------------------------

    def forge(self, upload: ItemUpload, forged: Forged, sent: Broadcast) -> ItemUpload:
        """Replace the made-up users' rows; `forged.rows` are `CraftedItems`."""
        crafted: CraftedItems = forged.rows
        rank = {client: i for i, client in enumerate(forged.clients)}
        theirs = [i for i, client in enumerate(upload.client_ids) if client in rank]
        if not theirs:
            return upload
        mine = torch.tensor([rank[upload.client_ids[i]] for i in theirs])
        chosen = crafted.chosen[mine]
        clients, items = chosen.nonzero(as_tuple=True)
        values = gather(crafted.rows, items) if crafted.rows.ndim == 2 else crafted.rows[mine[clients], items]
        splits = torch.cat([torch.zeros(1, dtype=torch.int64), chosen.sum(dim=1).cumsum(0)])
        made_up = ItemUpload(
            [upload.client_ids[i] for i in theirs],
            upload.num_examples[theirs],
            [upload.metrics[i] for i in theirs],
            splits.numpy(),
            items.numpy().astype(np.int32),
            values.float().numpy(),
            crafted.dense.float().expand(len(mine), -1).numpy(),
        )
        others = upload.part([i for i in range(len(upload)) if i not in set(theirs)])
        whole = join([others, made_up]) if len(others) else made_up
        ids = {client: i for i, client in enumerate(whole.client_ids)}
        order = [ids[client] for client in upload.client_ids]
        return whole if order == list(range(len(order))) else whole.take(order)

    # -- what it remembers -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Adam's moments and counts; empty where it has not stepped."""
        first, second, steps = self._adam
        return {"adam.first": first, "adam.second": second, "adam.steps": steps}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what `state_dict` gave."""
        self._adam = AdamState(*(np.array(state[f"adam.{name}"]) for name in AdamState._fields))


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
