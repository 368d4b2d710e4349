"""Precision and recall of a recommender that ranks all items a user has not rated."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from byzflower.datasets.interactions import Interactions
from byzflower.models.ranking import RANKS, precision_and_recall
from byzflower.models.stateless import StatelessRecommender

_BATCH_SCALARS = 1 << 23


def rank_all_items(
    model: StatelessRecommender,
    train: Interactions,
    test: Interactions,
    users: NDArray[np.int64],
    top: int = RANKS,
) -> dict[str, float]:
    """Mean Precision@K and Recall@K over users with test items, K = 1..top.

    All items but the user's training items are ranked; ties go to whichever `topk` takes.

    Args:
        model: what ranks.
        train: the users' known items.
        test: the items to find.
        users: whom to ask; those without test items are left out.
        top: largest K.

    Returns:
        ``precision@1`` ... and ``recall@1`` ..., in [0, 1]; nothing if no user has test items.
    """
    users = users[test.counts[users] > 0]
    if len(users) == 0:
        return {}
    width = max(1, _BATCH_SCALARS // train.num_items)
    hits = np.concatenate(
        [_hits(model, train, test, users[i : i + width], top) for i in range(0, len(users), width)]
    )
    return precision_and_recall(hits, test.counts[users])


def _hits(
    model: StatelessRecommender, train: Interactions, test: Interactions, users: NDArray[np.int64], top: int
) -> NDArray[np.bool_]:
    """Whether the items at ranks 1 to `top` are test items: (users, top)."""
    splits, known = _of(train, users)
    scores = model.scores(splits, known)
    scores[np.repeat(np.arange(len(users)), np.diff(splits)), known.astype(np.int64)] = -torch.inf
    best = scores.topk(top, dim=1).indices.numpy()
    splits, wanted = _of(test, users)
    keys = np.repeat(np.arange(len(users)), np.diff(splits)) * train.num_items + wanted
    found: NDArray[np.bool_] = np.isin(best + np.arange(len(users))[:, None] * train.num_items, keys)
    return found


def _of(table: Interactions, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Splits and items of some users."""
    parts = [table.of(int(user)) for user in users]
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]), np.concatenate(parts)
