"""Training pairs of a batch of users: an item that the user has, and one that it does not have."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Profiles:
    """The training pairs of k users, and the distinct items in them.

    Attributes:
        splits: (k + 1,) user i's distinct items are ``items[splits[i]:splits[i + 1]]``.
        items: (nnz,) ascending within a user.
        pair_splits: (k + 1,) user i's pairs, likewise.
        positive: (p,) of every pair, where its positive item is in `items`.
        negative: (p,) where its negative item is.
    """

    splits: Indices
    items: Indices
    pair_splits: Indices
    positive: Indices
    negative: Indices

    @classmethod
    def of(
        cls, positives: Sequence[NDArray[np.integer]], negatives: Sequence[NDArray[np.integer]]
    ) -> "Profiles":
        """Pair the users' positive items with as many negative ones (which may repeat)."""
        sizes = np.array([len(own) for own in positives], np.int64)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        both = np.concatenate([*positives, *negatives, np.empty(0, np.int64)]).astype(np.int64)
        span = int(both.max(initial=0)) + 1
        distinct, place = np.unique(np.tile(owner, 2) * span + both, return_inverse=True)
        return cls(
            _splits(np.bincount(distinct // span, minlength=len(sizes))),
            distinct % span,
            _splits(sizes),
            place[: len(owner)],
            place[len(owner) :],
        )

    def __len__(self) -> int:
        return len(self.splits) - 1

    @property
    def sizes(self) -> Indices:
        """(k,) pairs of each user."""
        return np.diff(self.pair_splits)

    @cached_property
    def owner(self) -> Indices:
        """(nnz,) which user each row is of."""
        return np.repeat(np.arange(len(self)), np.diff(self.splits))

    @cached_property
    def is_positive(self) -> NDArray[np.bool_]:
        """(nnz,) the items that the user has."""
        mask = np.zeros(len(self.items), bool)
        mask[self.positive] = True
        return mask

    def block(self, first: int, last: int) -> "Profiles":
        """The users at positions first..last-1."""
        rows, pairs = self.splits[first : last + 1], self.pair_splits[first : last + 1]
        return Profiles(
            rows - rows[0],
            self.items[rows[0] : rows[-1]],
            pairs - pairs[0],
            self.positive[pairs[0] : pairs[-1]] - rows[0],
            self.negative[pairs[0] : pairs[-1]] - rows[0],
        )

    def blocks(self, rows: int) -> list[tuple[int, int]]:
        """Ranges of users that together have about so many rows (at least one user each)."""
        bounds = [0]
        while bounds[-1] < len(self):
            target = self.splits[bounds[-1]] + rows
            bounds.append(max(bounds[-1] + 1, int(np.searchsorted(self.splits, target, "right")) - 1))
        return list(pairwise(bounds))

    def sums(self, coefficients: Floats, table: Floats) -> Floats:
        """Per user, its items' rows of an (m, d) table, weighted by (nnz,) coefficients: (k, d)."""
        from scipy import sparse  # late: a classifier needs no scipy

        shape = (len(self), len(table))
        matrix = sparse.csr_array((coefficients, self.items, self.splits), shape=shape)
        total: Floats = matrix @ table
        return total


def _splits(counts: Indices) -> Indices:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
