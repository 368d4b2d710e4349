"""ItemStrategy: the strategy of federated recommenders, where each item is aggregated by itself."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.strategies.base import RobustStrategy, StrategyOptions, row_bytes
from byzflower.strategies.items.rows import ItemRows
from byzflower.strategies.leeway import longest_step, too_long
from byzflower.strategies.result import check
from byzflower.strategies.rows import TooFewClients, view_of
from byzflower.strategies.stack import MAX_NORM, fault, is_held, row_norms
from byzflower.uploads.base import Rejection, Upload
from byzflower.uploads.items import ItemUpload, join
from byzflower.uploads.layout import Layout

_ITEM_BYTES = 120
Convention = Literal["standard", "spattack"]
ServerOptimizer = Literal["sgd", "adam"]


@dataclass(frozen=True)
class ItemResult:
    """What a rule made of every item's rows.

    Attributes:
        gradients: (k, d) aggregates of the k items that received rows.
        info: numbers worth recording.
    """

    gradients: torch.Tensor
    info: Mapping[str, float] = field(default_factory=dict)


class ItemOptions(StrategyOptions, TypedDict, total=False):
    """Options that every item strategy takes; see `ItemStrategy`."""

    server_optimizer: ServerOptimizer


@dataclass
class _Stack:
    """A round's uploads: clients with finite rows of bounded length, in any order.

    Attributes:
        client_ids: ascending.
        rejections: everybody else.
        upload: of the clients.
        norms: (nnz,) of the upload's rows.
    """

    client_ids: list[int]
    rejections: list[Rejection]
    upload: ItemUpload
    norms: NDArray[np.float32]

    masks: ClassVar[None] = None

    def largest(self) -> NDArray[np.float32]:
        """Norm of the longest row of each client that sent any."""
        splits = self.upload.splits
        largest: NDArray[np.float32] = np.maximum.reduceat(self.norms, splits[:-1][splits[:-1] < splits[1:]])
        return largest

    def beyond(self, limit: float, items: NDArray[np.int64]) -> list[Rejection]:
        """Clients whose row for one of these items is longer than allowed."""
        upload = self.upload
        places = np.flatnonzero((self.norms > limit) & np.isin(upload.items, items))
        owners = upload.owners[places]
        reasons = {
            upload.client_ids[owner]: too_long(f"item {upload.items[place]}", float(self.norms[place]), limit)
            for owner, place in zip(owners.tolist(), places.tolist(), strict=True)
        }
        return [Rejection(client, reasons[client]) for client in sorted(reasons)]


class ItemStrategy(RobustStrategy):
    """Base of the rules that treat each item as an aggregation of its own (Spattack, section 3).

    The first array of the model is the (m, d) item table. For every item, the rows that clients uploaded
    for it are aggregated: v_j <- v_j - server_lr * AGR(rows of j). Clients that did not touch an item do
    not count as zeros, and an item that nobody touched does not move; neither does one whose step is longer
    than what most clients send explains (see `leeway`): then its clients are named. Whatever else the model
    has is aggregated by the dense form of the same rule (`aggregate`).
    """

    upload_kind = ItemUpload

    def __init__(self, **options: Unpack[ItemOptions]) -> None:
        """Make the strategy.

        Args:
            options: see `RobustStrategy`, without ``pre``, ``upload`` and ``device`` (rows are gradients,
                and on the CPU), and ``server_optimizer`` ("sgd" or "adam", default sgd): Adam keeps
                moments of every item, which only aggregates of that item change.

        Raises:
            ValueError: an option out of its range.
        """
        self.server_optimizer = options.pop("server_optimizer", "sgd")
        for name in ("pre", "upload", "device"):
            check(name not in options, f"item strategies take no {name}", options.get(name))
        gradients: dict[str, Any] = {**options, "upload": "gradient"}
        super().__init__(**gradients)
        check(
            self.server_optimizer in ("sgd", "adam"),
            "server_optimizer must be sgd or adam",
            self.server_optimizer,
        )
        self._adam = _Adam()

    def upload_bytes(self, layout: Layout) -> float:
        """See `RobustStrategy`.

        As it arrived, put together with the others', and once more without those that are not finite; the
        number of every item, its places by client and by item, and what a rule notes of its row.
        """
        return 3.2 * row_bytes(layout) + _ITEM_BYTES * layout.shapes[0][0]

    @abstractmethod
    def aggregate_items(self, rows: ItemRows) -> ItemResult:
        """Aggregate every item's rows, all finite."""

    def remember_items(self, items: NDArray[np.int64], gradients: NDArray[np.float32]) -> None:
        """Be told of the items that move this round, and of their aggregates; by default forgotten."""

    def _stack(self, uploads: Sequence[Upload], layout: Layout) -> _Stack:
        mine = [upload for upload in uploads if isinstance(upload, ItemUpload)]
        upload = join(mine) if mine else ItemUpload.empty(layout)
        norms = row_norms(view_of(upload.rows)).numpy()
        fit = row_norms(view_of(upload.dense)).numpy() <= MAX_NORM
        long = np.flatnonzero(~(norms <= MAX_NORM))
        fit[np.searchsorted(upload.splits, long, "right") - 1] = False
        if fit.all():
            return _Stack(sorted(upload.client_ids), [], upload, norms)
        bad = [upload.take([i]) for i in np.flatnonzero(~fit).tolist()]
        rejections = [Rejection(one.client_ids[0], fault(one.rows, one.dense)) for one in bad]
        norms = norms[fit[upload.owners]]
        upload = upload.take(np.flatnonzero(fit).tolist())
        return _Stack(sorted(upload.client_ids), rejections, upload, norms)

    def _step(self, matrix: _Stack, layout: Layout) -> NDArray[Any]:
        upload = matrix.upload
        if len(upload.items) == 0:
            raise TooFewClients("no usable upload arrived")
        m, d = layout.shapes[0]
        clients = np.array(upload.client_ids, np.uint64)
        rows = ItemRows(upload.rows, clients, upload.splits, upload.items, m)
        result = self.aggregate_items(rows)
        limit = longest_step(matrix.largest())
        moved = (row_norms(result.gradients) <= limit).numpy()
        items = rows.items.numpy()[moved]
        gradients = result.gradients.numpy()[moved]
        self.remember_items(items, gradients)
        touched = np.zeros(layout.width, bool)
        touched[: m * d].reshape(m, d)[items] = True
        touched[m * d :] = True
        gradient = np.zeros(layout.width, np.float32)
        gradient[: m * d].reshape(m, d)[items] = gradients
        if layout.width > m * d:
            gradient[m * d :] = self._aggregate_dense(upload, clients).numpy()
        if self.server_optimizer == "adam":
            gradient = self._adam.direction(gradient, touched)
        new: NDArray[Any] = self._global - np.float32(self.server_lr) * gradient
        if not is_held(new, layout):
            raise TooFewClients("the new model would not be finite")
        record = self.last_round
        record.info = {"items": float(len(rows)), "rows": float(len(rows.order)), **result.info}
        record.dropped = matrix.beyond(limit, rows.items.numpy()[~moved])
        return new

    def _aggregate_dense(self, upload: ItemUpload, clients: NDArray[np.uint64]) -> torch.Tensor:
        dense = torch.from_numpy(upload.dense[np.argsort(clients)])
        equal = torch.full((len(dense),), 1 / len(dense), dtype=torch.float64)
        return self.apply(dense, equal).gradient

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """See `RobustStrategy`."""
        return {**super().state_dict(), **self._adam.state_dict()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `RobustStrategy`."""
        super().load_state_dict(state)
        self._adam.load_state_dict(state)


class _Adam:
    """Adam (Kingma and Ba, 2015) that leaves untouched coordinates, and their counts of steps, alone."""

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.first = self.second = self.steps = np.empty(0, np.float32)

    def direction(self, gradient: NDArray[np.float32], touched: NDArray[np.bool_]) -> NDArray[np.float32]:
        """What to step along, (width,); 0 where nothing was touched."""
        if len(self.first) == 0:
            self.first, self.second, self.steps = (np.zeros_like(gradient) for _ in range(3))
        g = gradient[touched]
        self.steps[touched] += 1
        self.first[touched] = self.beta1 * self.first[touched] + (1 - self.beta1) * g
        self.second[touched] = self.beta2 * self.second[touched] + (1 - self.beta2) * g * g
        mean = self.first[touched] / (1 - self.beta1 ** self.steps[touched])
        square = self.second[touched] / (1 - self.beta2 ** self.steps[touched])
        step = np.zeros_like(gradient)
        step[touched] = mean / (np.sqrt(square) + self.eps)
        return step

    def state_dict(self) -> dict[str, NDArray[Any]]:
        return {"adam.first": self.first, "adam.second": self.second, "adam.steps": self.steps}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.first, self.second, self.steps = (
            np.array(state[f"adam.{name}"]) for name in ("first", "second", "steps")
        )
