"""Hit rate, gain, precision and recall against their definitions."""

import math

import numpy as np
import pytest

from byzflower.models.ranking import hits_and_gains, precision_and_recall


@pytest.mark.parametrize("rank", range(7))
def test_one_item_is_a_hit_above_k_and_worth_less_further_down(rank):
    scores = hits_and_gains(rank, (1, 5))
    relevance = [float(i == rank) for i in range(7)]
    for k in (1, 5):
        gain = sum(r / math.log2(i + 2) for i, r in enumerate(relevance[:k]))  # of one item, the best is 1
        assert scores[f"HR@{k}"] == sum(relevance[:k])
        assert scores[f"nDCG@{k}"] == pytest.approx(gain)


def test_precision_and_recall_count_hits_by_rank_and_by_want():
    hits = np.array([[True, False, True], [False, False, False]])
    scores = precision_and_recall(hits, np.array([4, 1]))
    assert scores == pytest.approx(
        {
            **{"precision@1": 1 / 2, "precision@2": 1 / 4, "precision@3": 1 / 3},
            **{"recall@1": 1 / 8, "recall@2": 1 / 8, "recall@3": 1 / 4},
        }
    )
