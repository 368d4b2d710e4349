"""Implicit feedback: which user interacted with which items, and how that is divided."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from byzflower.numerics.randomness import numpy_generator


@dataclass(frozen=True)
class Interactions:
    """Items of each user, each once.

    Attributes:
        num_items: items are numbered from 0 below this, whether anybody interacted with them or not.
        splits: (users + 1,) int64, user u's items are items[splits[u]:splits[u + 1]].
        items: int32, ascending for each user.
        order: int64, place of each interaction among all: in time if `timed`, else in the file.
        timed: whether it is known when interactions were.
    """

    num_items: int
    splits: NDArray[np.int64]
    items: NDArray[np.int32]
    order: NDArray[np.int64]
    timed: bool = False

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
        times: NDArray[np.floating] | None = None,
    ) -> Self:
        """Make a table of (user, item) pairs; repeated ones count once, at their first place.

        Args:
            users: (e,) numbered from 0.
            items: (e,) numbered from 0.
            num_users: default the largest user and one.
            num_items: default the largest item and one.
            times: (e,) when each was, if that is known; equal ones keep the order in which they come.
        """
        num_users = int(users.max()) + 1 if num_users is None else num_users
        num_items = int(items.max()) + 1 if num_items is None else num_items
        keys, first = np.unique(users.astype(np.int64) * num_items + items, return_index=True)
        counts = np.bincount(keys // num_items, minlength=num_users)
        came = np.lexsort((first,) if times is None else (first, times[first]))
        return cls(
            num_items,
            np.concatenate([[0], np.cumsum(counts)]),
            (keys % num_items).astype(np.int32),
            _places(came),
            times is not None,
        )

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

    @cached_property
    def popularity(self) -> NDArray[np.int64]:
        """(num_items,) number of users that have each item: the items' degrees."""
        return np.bincount(self.items, minlength=self.num_items)

    def of(self, user: int) -> NDArray[np.int32]:
        """Items of one user."""
        return self.items[self.splits[user] : self.splits[user + 1]]

    def first(self, users: int) -> Self:
        """The same items with the first users only."""
        kept = slice(0, int(self.splits[users]))
        return type(self)(
            self.num_items, self.splits[: users + 1], self.items[kept], self.order[kept], self.timed
        )

    # -- divisions -------------------------------------------------------------------------------------

    def divided(self, share: float, random: np.random.Generator) -> "Split":
        """Divide every user's items at random: a share of them, rounded, at least one, and the rest.

        Args:
            share: of items to train on, in (0, 1).
            random: decides which.
        """
        kept = np.maximum(1, np.rint(share * self.counts).astype(np.int64))
        return self._earliest(kept, random.random(len(self.items)))

    def leave_one_out(self, seed: int = 0) -> "Split":
        """Hold out every user's last interaction, or a random one if there are no times.

        A user with a single item keeps it.

        Args:
            seed: of the random choice.
        """
        when: NDArray[np.generic] = self.order
        if not self.timed:
            when = numpy_generator(seed, "leave-one-out").random(len(when))[self.order]
        return self._earliest(np.maximum(1, self.counts - 1), when)

    def _earliest(self, kept: NDArray[np.int64], when: NDArray[np.generic]) -> "Split":
        """Divide into the first `kept` items of each user in the order of `when`, and the others."""
        place = _places(np.lexsort((when, self.users)))
        train = place - np.repeat(self.splits[:-1], self.counts) < np.repeat(kept, self.counts)
        return Split(self._where(train), self._where(~train))

    def _where(self, chosen: NDArray[np.bool_]) -> Self:
        splits = np.concatenate([[0], np.cumsum(chosen)])[self.splits]
        return type(self)(self.num_items, splits, self.items[chosen], self.order[chosen], self.timed)


class Split(NamedTuple):
    """A table, divided.

    Attributes:
        train: what users learn from.
        test: what they should find.
    """

    train: Interactions
    test: Interactions

    def touched(self, user: int) -> NDArray[np.int32]:
        """All items of a user, ascending."""
        return np.union1d(self.train.of(user), self.test.of(user))


def _places(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each index is in a permutation."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places
