"""The gradient rows of a round by item, and batches of items that received equally many."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.numerics.rows import Rows, view_of
from byzflower.numerics.threads import map_blocks

# Scalars in a batch, which bounds the memory of temporaries.
_BATCH_SCALARS = 1 << 19


def gather(table: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Rows of a CPU table: (m, d) and places in [0, m) of any shape -> (*places.shape, d).

    Several times as fast as torch's own indexing for short rows, and than NumPy's with checks of the places.
    """
    return torch.from_numpy(np.take(table.numpy(), places.numpy(), axis=0, mode="clip"))


class Batch(NamedTuple):
    """Items that received equally many rows.

    Attributes:
        places: (b,) where the items are among those that received any.
        rows: (c, b) which rows they received, in the order of the clients.
    """

    places: torch.Tensor
    rows: torch.Tensor


class ItemRows:
    """nnz item rows of d scalars, grouped by item: each item is aggregated by itself.

    Attributes:
        values: (nnz, d) float32, in any order, never copied.
        items: (k,) the items that received a row, ascending.
        splits: (k + 1,) item number j's rows are ``order[splits[j]:splits[j + 1]]``, by client.
        order: (nnz,) positions in `values`.
        num_clients: how many clients there are, with rows or without.
    """

    def __init__(
        self,
        values: NDArray[np.float32],
        clients: NDArray[np.uint64],
        splits: NDArray[np.int64],
        items: NDArray[np.int32],
        num_items: int,
    ) -> None:
        """Sort rows by item, in linear time.

        Args:
            values: (nnz, d) rows, client by client.
            clients: (n,) ids of the clients; rows of an item are in their order.
            splits: (n + 1,) client i's rows are ``splits[i]..splits[i + 1]``.
            items: (nnz,) item of each row, distinct within a client.
            num_items: m.
        """
        from scipy import sparse  # late: only tables of items need scipy

        places = np.arange(len(items), dtype=np.int64)
        by_client = sparse.csr_array((places, items, splits), shape=(len(clients), num_items))
        rank = np.argsort(clients)
        if (rank[1:] < rank[:-1]).any():
            by_client = by_client[rank]
        by_item = by_client.tocsc()
        counts = np.diff(by_item.indptr)
        self.values = view_of(values)
        self.num_clients = len(clients)
        self.items = torch.from_numpy(np.flatnonzero(counts))
        self.order = torch.from_numpy(by_item.data)
        received = counts[counts > 0].astype(np.int64)
        self.counts = torch.from_numpy(received)
        self.splits = torch.from_numpy(np.concatenate([np.zeros(1, np.int64), np.cumsum(received)]))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def d(self) -> int:
        """Number of columns."""
        return int(self.values.shape[1])

    @cached_property
    def place(self) -> torch.Tensor:
        """(nnz,) position in `items` of the item of each row in `values`."""
        place = torch.empty_like(self.order)
        place[self.order] = torch.repeat_interleave(torch.arange(len(self)), self.counts)
        return place

    def totals(self, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Sum of each item's rows, weighted by (nnz,) weights of the rows in `values`: (k, d) float32.

        Summed in the clients' order, so that the bits do not depend on which nodes they were on.
        """
        from scipy import sparse

        nnz = len(self.order)
        data = np.ones(nnz, np.float32) if weights is None else weights[self.order].float().numpy()
        shape = (len(self), len(self.values))
        matrix = sparse.csr_array((data, self.order.numpy(), self.splits.numpy()), shape=shape)
        return torch.from_numpy(matrix @ self.values.numpy())

    def means(self, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Mean of each item's rows, each times its weight: (k, d)."""
        return self.totals(weights).div_(self.counts[:, None])

    def std(self) -> torch.Tensor:
        """Standard deviation (biased) of each item's rows, per coordinate: (k, d)."""
        away = self.values.double() - gather(self.means().double(), self.place)
        squares = torch.zeros(len(self), self.d, dtype=torch.float64)
        for places, rows in self.batches():
            squares[places] = gather(away, rows).square_().sum(dim=0)
        return (squares / self.counts[:, None]).sqrt_().float()

    def item_sums(self, scores: torch.Tensor) -> torch.Tensor:
        """Sum over each item's rows of scores given for the rows in `values`: (nnz,) -> (k,) float64."""
        sums = np.bincount(self.place.numpy(), scores.double().numpy(), len(self))
        return torch.from_numpy(sums)

    def squared_distances_to(self, points: torch.Tensor | None) -> torch.Tensor:
        """Squared distance of every row to its item's (d,) row of (k, d) points (None: 0): (nnz,) float64."""
        out = torch.empty(len(self.values), dtype=torch.float64)
        width = max(1, _BATCH_SCALARS // self.d)
        for start in range(0, len(out), width):
            part = slice(start, start + width)
            values = self.values[part].double()
            if points is not None:
                values = values - gather(points, self.place[part])
            out[part] = values.square_().sum(dim=1)
        return out

    def batches(self) -> Iterator[Batch]:
        """All items, in batches of items with equally many rows and of bounded size."""
        by_count = torch.sort(self.counts, stable=True)
        sizes, numbers = torch.unique_consecutive(by_count.values, return_counts=True)
        start = 0
        for count, number in zip(sizes.tolist(), numbers.tolist(), strict=True):
            places = by_count.indices[start : start + number]
            start += number
            for chunk in torch.split(places, max(1, _BATCH_SCALARS // (count * self.d))):
                within = self.splits[chunk] + torch.arange(count)[:, None]
                yield Batch(chunk, self.order[within])

    def map(self, work: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Call `work` with the (c, b, d) rows of every batch of items, on all cores.

        Args:
            work: returns the (b, d) aggregates; called from several threads.

        Returns:
            (k, d) aggregates of all items.
        """
        out = torch.empty(len(self), self.d)
        batches = list(self.batches())

        def apply(block: slice) -> None:
            for places, rows in batches[block]:
                out[places] = work(gather(self.values, rows))

        map_blocks(apply, len(batches), 1)
        return out

    def columnwise(self, rule: Callable[[Rows], torch.Tensor]) -> torch.Tensor:
        """Apply a coordinate-wise rule for matrices to every item: (k, d).

        The rule sees the b items with c rows each as one matrix of c rows and b x d columns.
        """
        return self.map(lambda rows: rule(Rows.of(rows.flatten(1))).view(-1, self.d))
