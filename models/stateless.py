"""Base of recommenders that are trained by ranking and keep nothing per user."""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

_SIMD = 64  # values; no vector register holds more


class UserItems(NamedTuple):
    """Items of some users, and what they are compared with.

    Attributes:
        splits: (users + 1,) int64, user u's items are items[splits[u]:splits[u + 1]].
        items: int32, ascending for each user, who has at least one.
        negatives: int32, c for each of `items`, in their order, none of them the user's.
    """

    splits: NDArray[np.int64]
    items: NDArray[np.int32]
    negatives: NDArray[np.int32]

    @property
    def users(self) -> torch.Tensor:
        """The user of each of `items`."""
        counts = torch.from_numpy(np.diff(self.splits))
        return torch.arange(len(counts)).repeat_interleave(counts)

    @property
    def per_item(self) -> int:
        """C."""
        return len(self.negatives) // max(len(self.items), 1)


class ItemGradients(NamedTuple):
    """Gradients of some users' losses.

    Attributes:
        splits: (users + 1,) int64, user u's rows are rows[splits[u]:splits[u + 1]].
        rows: int32, ascending for each user: rows of the model's tables, one table after the other.
        values: (rows, dim) their gradients; all others are 0.
        losses: (users,) each user's ranking loss, without the regularisation.
    """

    splits: NDArray[np.int64]
    rows: NDArray[np.int32]
    values: torch.Tensor
    losses: torch.Tensor


class StatelessRecommender(nn.Module):
    """Base of recommenders: tables of item vectors, one row per item."""

    @abstractmethod
    def gradients(self, users: UserItems, reg: float) -> ItemGradients:
        """Each user's gradient of -sum log sigmoid(y_ij - y_ik) + reg / 2 |touched rows|^2.

        The same bits, whatever other users are asked for at the same time.
        """

    @abstractmethod
    def scores(self, splits: NDArray[np.int64], items: NDArray[np.int32]) -> torch.Tensor:
        """Scores of all items for users with these items: (users, num_items)."""


class Touched(NamedTuple):
    """The rows of one table that users touch.

    Attributes:
        users: of each row.
        rows: ascending for each user.
        own: place among `rows` of each of the users' items.
        other: place of each negative.
    """

    users: torch.Tensor
    rows: torch.Tensor
    own: torch.Tensor
    other: torch.Tensor


def touched_rows(users: UserItems, num_items: int) -> Touched:
    """Items and negatives of each user, each once."""
    own = users.users * num_items + torch.from_numpy(users.items)
    other = users.users.repeat_interleave(users.per_item) * num_items + torch.from_numpy(users.negatives)
    keys, place = np.unique(torch.cat([own, other]).numpy(), return_inverse=True)
    rows = torch.from_numpy(keys)
    places = torch.from_numpy(place)
    return Touched(rows // num_items, rows % num_items, places[: len(own)], places[len(own) :])


def sums(values: torch.Tensor, places: torch.Tensor, count: int) -> torch.Tensor:
    """Sum of the values at each place, in their order: (k, ...) -> (count, ...)."""
    return values.new_zeros(count, *values.shape[1:]).index_add_(0, places, values)


def by_user(
    num_users: int, *parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> tuple[NDArray[np.int64], NDArray[np.int32], torch.Tensor]:
    """Bring tables' (user of each row, row, value) into one list: splits, rows and values by user."""
    users, rows, values = (torch.cat(column) for column in zip(*parts, strict=True))
    order = torch.sort(users, stable=True).indices
    splits = np.concatenate([[0], np.cumsum(torch.bincount(users, minlength=num_users).numpy())])
    return splits.astype(np.int64), rows[order].numpy().astype(np.int32), values[order]


def pairwise_loss(score: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """BPR: -log sigmoid(score) of each pair, and its derivative (Rendle et al., 2009)."""
    return elementwise(nn.functional.softplus, -score), -elementwise(torch.sigmoid, -score)


def elementwise(function: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """Apply a function to (k,) values, with bits that do not depend on a value's position in the tensor.

    Torch computes the remainder after whole SIMD vectors by another approximation, so the values are padded.
    """
    return function(nn.functional.pad(values, (0, -len(values) % _SIMD)))[: len(values)]
