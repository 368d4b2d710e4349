"""Which user has dealt with which items: implicit feedback, as one compressed table."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interactions:
    """Items of each user, each once.

    Attributes:
        num_items: items are numbered from 0 below this, whether anybody has dealt with them or not.
        splits: (users + 1,) int64, user u's items are items[splits[u]:splits[u + 1]].
        items: int32, ascending for each user.
    """

    num_items: int
    splits: NDArray[np.int64]
    items: NDArray[np.int32]

    def __post_init__(self) -> None:
        """Check the table.

        Raises:
            ValueError: the splits do not divide the items, or an item is out of range.
        """
        if self.splits[0] != 0 or self.splits[-1] != len(self.items) or (np.diff(self.splits) < 0).any():
            raise ValueError(f"splits do not divide {len(self.items)} interactions")
        if len(self.items) and not (self.items.min() >= 0 and self.items.max() < self.num_items):
            raise ValueError(f"items are not all in [0, {self.num_items})")

    @classmethod
    def of_pairs(
        cls,
        users: NDArray[np.integer],
        items: NDArray[np.integer],
        num_users: int | None = None,
        num_items: int | None = None,
    ) -> Self:
        """Make a table of (user, item) pairs in any order; repeated ones count once.

        Args:
            users: numbered from 0.
            items: numbered from 0.
            num_users: default the largest user and one.
            num_items: default the largest item and one.
        """
        num_users = int(users.max()) + 1 if num_users is None else num_users
        num_items = int(items.max()) + 1 if num_items is None else num_items
        keys = np.unique(users.astype(np.int64) * num_items + items)
        counts = np.bincount(keys // num_items, minlength=num_users)
        return cls(num_items, np.concatenate([[0], np.cumsum(counts)]), (keys % num_items).astype(np.int32))

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.splits) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """(users,) items of each."""
        return np.diff(self.splits)

    @property
    def users(self) -> NDArray[np.int64]:
        """The user of each interaction."""
        return np.repeat(np.arange(self.num_users), self.counts)

    def of(self, user: int) -> NDArray[np.int32]:
        """Items of one user."""
        return self.items[self.splits[user] : self.splits[user + 1]]

    def first(self, users: int) -> Self:
        """The same items with the first users only."""
        return type(self)(self.num_items, self.splits[: users + 1], self.items[: self.splits[users]])

    def divided(self, share: float, random: np.random.Generator) -> tuple[Self, Self]:
        """Divide every user's items at random: a share of them, rounded, at least one, and the rest.

        Args:
            share: in (0, 1).
            random: decides which.
        """
        order = np.lexsort((random.random(len(self.items)), self.users))
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        kept = np.maximum(1, np.rint(share * self.counts).astype(np.int64))
        first = place - np.repeat(self.splits[:-1], self.counts) < np.repeat(kept, self.counts)
        return self._where(first), self._where(~first)

    def _where(self, chosen: NDArray[np.bool_]) -> Self:
        splits = np.concatenate([[0], np.cumsum(chosen)])[self.splits]
        return type(self)(self.num_items, splits, self.items[chosen])
