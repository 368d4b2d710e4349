"""Scores of rankings: of one wanted item among others, and of many among all."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RANKS = 5  # Precision@K and Recall@K are recorded up to this K


def hits_and_gains(rank: int, tops: Sequence[int]) -> dict[str, float]:
    """Hit rate and normalised discounted cumulative gain of one wanted item.

    Args:
        rank: of the item, from 0.
        tops: the K.

    Returns:
        ``HR@K`` (1 if the item is among the first K) and ``nDCG@K`` (then 1 / log2(rank + 2), else 0).
    """
    gain = 1 / np.log2(rank + 2)
    return {
        **{f"HR@{k}": float(rank < k) for k in tops},
        **{f"nDCG@{k}": float(gain) if rank < k else 0.0 for k in tops},
    }


def precision_and_recall(hits: NDArray[np.bool_], wanted: NDArray[np.integer]) -> dict[str, float]:
    """Mean precision and recall of users' first K items, K = 1..top.

    Args:
        hits: (users, top) whether the item at each rank is wanted.
        wanted: (users,) how many are wanted, at least 1.

    Returns:
        ``precision@K`` (share of the first K that are wanted) and ``recall@K`` (share of the wanted that
        are among the first K), in [0, 1].
    """
    ranks = np.arange(1, hits.shape[1] + 1)
    found = hits.cumsum(axis=1)
    precision, recall = (found / ranks).mean(axis=0), (found / wanted[:, None]).mean(axis=0)
    return {
        **{f"precision@{k}": float(precision[k - 1]) for k in ranks},
        **{f"recall@{k}": float(recall[k - 1]) for k in ranks},
    }
